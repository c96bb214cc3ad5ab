#!/usr/bin/env bash
# Posts a summary as the one comment of a pull request that carries our mark: updates it where it is, else makes it.
#   comment.sh SUMMARY.md      GITHUB_REPOSITORY, GATE_PULL_REQUEST, GH_TOKEN from the environment; uses GitHub's own `gh`
# A pull request from a fork has no right to comment: that is told and is no failure.
set -euo pipefail

summary="$1"
mark='<!-- madd-prof budgets -->'
# GitHub takes 65,536 characters; what is more is cut between lines, with a pointer.
most=60000
body=$(mktemp)
trap 'rm -f "$body"' EXIT
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
refused() { echo "::notice title=madd-prof::no comment: the token may not write to this pull request"; exit 0; }
ids=$(gh api --paginate "$issue/$GATE_PULL_REQUEST/comments" --jq "$find_ours") || refused
id=$(printf '%s\n' "$ids" | head -n 1)
if [ -n "$id" ]; then
    gh api --method PATCH "$issue/comments/$id" --field body=@"$body" --silent || refused
else
    gh api --method POST "$issue/$GATE_PULL_REQUEST/comments" --field body=@"$body" --silent || refused
fi
