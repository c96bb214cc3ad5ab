#!/usr/bin/env bash
# Posts a summary as the one comment of a pull request that carries our mark: updates it where it is, else makes it.
#   comment.sh SUMMARY.md      GITHUB_REPOSITORY, GATE_PULL_REQUEST, GH_TOKEN from the environment; uses GitHub's own `gh`
# A pull request from a fork has no right to comment: that is told and is no failure, and neither is a server that does not answer.
set -euo pipefail

summary="$1"
mark='<!-- madd-prof budgets -->'
# GitHub takes 65,536 characters; what is more is cut between lines, with a pointer.
most=60000
body=$(mktemp)
told=$(mktemp)
trap 'rm -f "$body" "$told"' EXIT
{
    echo "$mark"
    if [ "$(wc -c <"$summary")" -le "$most" ]; then
        cat "$summary"
    else
        head -c "$most" "$summary" | sed '$d'
        printf '\n…\n\nCut here; the job summary has all of it.\n'
    fi
} >"$body"

issue="repos/$GITHUB_REPOSITORY/issues"
find_ours=".[] | select(.body | startswith(\"$mark\")) | .id"
# An instance of one's own has its name in GITHUB_SERVER_URL; `gh` takes it and its token by other names.
server="${GITHUB_SERVER_URL:-https://github.com}"
export GH_HOST="${GH_HOST:-${server#*://}}" GH_ENTERPRISE_TOKEN="${GH_ENTERPRISE_TOKEN:-${GH_TOKEN:-}}"
ask() {
    gh api "$@" 2>"$told" && return
    cat "$told" >&2
    case "$(cat "$told")" in
        *"HTTP 401"* | *"HTTP 403"* | *"HTTP 404"*) why="the token may not write to this pull request" ;;
        *) why=$(head -n 1 "$told") ;;
    esac
    echo "::notice title=madd-prof::no comment: $why" >&3
    return 1
}
exec 3>&1
ids=$(ask --paginate "$issue/$GATE_PULL_REQUEST/comments" --jq "$find_ours") || exit 0
id=${ids%%$'\n'*}
if [ -n "$id" ]; then
    ask --method PATCH "$issue/comments/$id" --field body=@"$body" --silent || exit 0
else
    ask --method POST "$issue/$GATE_PULL_REQUEST/comments" --field body=@"$body" --silent || exit 0
fi
