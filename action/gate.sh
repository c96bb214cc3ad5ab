#!/usr/bin/env bash
# The action's check: runs `madd-prof check` once, with annotations on stdout, the job summary, JUnit, SARIF and JSON in files.
# Everything it needs comes by environment, so that it runs the same on any machine:
#   GATE_BINARY   the program (default: madd-prof)       GATE_CONFIG   settings (default: found by walking up)
#   GATE_BUDGETS  names of budgets (default: all)        GATE_LATENCY  false leaves out limits on latency
#   GATE_OUTPUT   folder for results                     GATE_DEFER    true: exit 0, the verdict is a later step's
# Exit code: that of `madd-prof check`: 0 within, 1 breach, 3 cannot tell, 2 usage or input error.
set +e -uo pipefail

program="${GATE_BINARY:-}"
[ -n "$program" ] || program=madd-prof
out="${GATE_OUTPUT:-${RUNNER_TEMP:-${TMPDIR:-/tmp}}/madd-prof-gate}"
mkdir -p "$out" || exit 2
rm -f "$out"/budgets.*

arguments=(check --why --quiet --format github)
for format in markdown:md junit:xml sarif:sarif json:json; do
    arguments+=(--also "${format%%:*}=$out/budgets.${format##*:}")
done
[ -z "${GATE_CONFIG:-}" ] || arguments+=(--config "$GATE_CONFIG")
[ "${GATE_LATENCY:-true}" != false ] || arguments+=(--no-latency)
if [ -n "${GATE_BUDGETS:-}" ]; then
    read -r -a names <<<"$GATE_BUDGETS"
    arguments+=(-- "${names[@]}")
fi

"$program" "${arguments[@]}" 2>"$out/budgets.err"
code=$?
case $code in
    0) outcome=pass ;;
    1) outcome=breach ;;
    3) outcome=cannot_tell ;;
    *) outcome=error code=2 ;;
esac
if [ -s "$out/budgets.err" ]; then
    cat "$out/budgets.err" >&2
fi
if [ $outcome = error ]; then
    # One annotation with the whole message; percent signs and line ends as workflow commands want them.
    message=$(cat "$out/budgets.err")
    message="${message//'%'/%25}"
    message="${message//$'\n'/%0A}"
    printf '::error title=madd-prof::%s\n' "$message"
    { printf '## madd-prof: error\n\n```text\n'; cat "$out/budgets.err"; printf '```\n'; } >"$out/budgets.md"
fi
if [ -n "${GITHUB_STEP_SUMMARY:-}" ] && [ -f "$out/budgets.md" ]; then
    cat "$out/budgets.md" >>"$GITHUB_STEP_SUMMARY"
fi
if [ -n "${GITHUB_OUTPUT:-}" ]; then
    {
        echo "outcome=$outcome"
        echo "summary=$out/budgets.md"
        echo "junit=$out/budgets.xml"
        echo "sarif=$out/budgets.sarif"
    } >>"$GITHUB_OUTPUT"
fi
[ "${GATE_DEFER:-false}" != true ] || exit 0
exit $code
