#!/usr/bin/env bash
# Downloads one release of madd-prof and puts it on the PATH of later steps. Nothing else is fetched; its checksum is held.
set -euo pipefail
case "$(uname -s)-$(uname -m)" in
    Linux-x86_64) target=x86_64-unknown-linux-musl ;;
    Linux-aarch64) target=aarch64-unknown-linux-musl ;;
    Darwin-arm64) target=aarch64-apple-darwin ;;
    Darwin-x86_64) target=x86_64-apple-darwin ;;
    MINGW*-x86_64 | MSYS*-x86_64) target=x86_64-pc-windows-msvc ;;
    *) echo "::error title=madd-prof::there is no release for $(uname -sm); build it and give its path as 'binary'"; exit 2 ;;
esac
case "${GATE_VERSION:-}" in
    v[0-9]*) release="download/$GATE_VERSION" ;;
    *) release="latest/download" ;;
esac
# Where this copy came from: of a composite action the runner does not always tell its repository, but its folder says it.
path="${GITHUB_ACTION_PATH:-}"
path="${path//\\//}"
case "$path" in
    */_actions/*/*/*) path="${path##*/_actions/}"; repository="$(cut -d/ -f1,2 <<<"$path")" ;;
    *) repository="${GATE_REPOSITORY:-}" ;;
esac
if [ -z "$repository" ]; then
    echo "::error title=madd-prof::a copy in the workflow's own repository has no releases to take; build it and give its path as 'binary'"
    exit 2
fi
folder="${RUNNER_TEMP:?}/madd-prof-bin"
mkdir -p "$folder"
cd "$folder"
url="${GITHUB_SERVER_URL:-https://github.com}/$repository/releases/$release/madd-prof-$target.tar.gz"
curl --fail --silent --show-error --location --retry 3 --remote-name-all "$url" "$url.sha256" || {
    echo "::error title=madd-prof::no release for this machine at $url"
    exit 2
}
if command -v sha256sum >/dev/null; then sha256sum --check --quiet ./*.sha256; else shasum -a 256 --check --quiet ./*.sha256; fi
tar xzf "madd-prof-$target.tar.gz"
echo "$folder" >>"$GITHUB_PATH"
