#!/usr/bin/env bash
# The action's last word, after the comment was posted: fails the step unless the outcome lets it pass.
set -euo pipefail
case "${GATE_OUTCOME:-error}" in
    pass) exit 0 ;;
    breach) echo "a budget is breached; the job summary names the layers" >&2; exit 1 ;;
    cannot_tell)
        echo "a limit cannot be told; the job summary says why" >&2
        [ "${GATE_CANNOT_TELL:-fail}" = pass ] && exit 0
        exit 3 ;;
    *) echo "the check could not be made" >&2; exit 2 ;;
esac
