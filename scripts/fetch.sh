# Sourced by the download scripts: fetches files, verifies them and never deletes one.
#
# A transfer goes to FILE.part and becomes FILE when its size and SHA-256 are right. What is
# interrupted stays and goes on with the next call; what is wrong is moved to FILE.part.rejected.
# Exit status: 0 done, 1 the transfer failed, 2 bad usage, 3 the content is wrong.

DOWNLOADS=${SNIPER_DOWNLOADS:-data/downloads}
EXIT_TRANSFER=1 EXIT_USAGE=2 EXIT_CONTENT=3
PART_TRANSFERRED=18 HTTP_ERROR=22 WRITE_ERROR=23 NO_RANGES=33

# The scripts go to the root of the checkout before they source this file; paths of the user are
# relative to where they were called.
CALLED_FROM=${OLDPWD:-$PWD}

if [ -x .venv/bin/python ]; then PATH="$PWD/.venv/bin:$PATH"; fi

sniper_tool() { "$(any_python)" -m sniper.tools.cli "$@"; }

# Debian and Ubuntu have a python3, and no python.
any_python() { command -v python || command -v python3 || echo python3; }

# complain TEXT [MORE ...]: one line each, as the Python programs write errors.
complain() {
  printf 'error: %s\n' "$1" >&2
  shift
  [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
}

usage_error() {
  complain "$1" "--help explains this script"
  exit $EXIT_USAGE
}

# The lines of --help on the common flags. The script has set default_cfg.
flags_help() {
  cat <<EOF
  --file PATH     take this file, fetch nothing
  --url ADDRESS   fetch it from here; needs --sha256
  --sha256 HEX    what the file must have
  --size BYTES    what the file must have
  --member PATH   which .params of an archive that holds several: its path, or the end of it
  --overwrite     replace another result that is there already
  --cfg F         recipe, a file or a shipped name (default: $default_cfg)
  --set K V ...   overrides of the recipe, must be last
  --help          this text
EOF
}

# Common flags: sets file, url, sha256, size, cfg and the arrays overwrite, member (the flag or
# nothing) and own (--set KEY VALUE ...); everything else goes to the array rest.
parse_flags() {
  file='' url='' sha256='' size='' cfg=$default_cfg overwrite=() member=() own=() rest=()
  while [ $# -gt 0 ]; do
    case $1 in
      -h|--help) usage; exit 0 ;;
      --file|--url|--sha256|--size|--cfg|--member)
        [ $# -ge 2 ] && [ -n "$2" ] || usage_error "$1 needs a value"
        case $1 in
          --file) file=$2 ;;
          --url) url=$2 ;;
          --sha256) sha256=${2,,} ;;
          --size) size=$2 ;;
          --cfg) cfg=$2 ;;
          --member) member=(--member "$2") ;;
        esac
        shift 2 ;;
      --overwrite) overwrite=(--overwrite); shift ;;
      --set) shift; own=("$@"); break ;;
      -*) usage_error "unknown flag: $1" ;;
      *) rest+=("$1"); shift ;;
    esac
  done
  case $file in ''|/*) ;; *) file=$CALLED_FROM/$file ;; esac
  [ -z "$file" ] || [ -z "$url" ] || usage_error "give --file or --url, not both"
  [ -z "$size" ] || [[ $size =~ ^[1-9][0-9]*$ ]] || usage_error "--size must be a number of bytes, got '$size'"
  [ -z "$sha256" ] || [[ $sha256 =~ ^[0-9a-f]{64}$ ]] || usage_error "--sha256 must have 64 hexadecimal digits, got '$sha256'"
}

bytes() { stat -c %s "$1"; }

# matches FILE SIZE SHA256: says what is wrong. An empty SIZE or SHA256 is not known.
matches() {
  local found
  found=$(bytes "$1")
  if [ -n "$2" ] && [ "$found" != "$2" ]; then
    complain "the size is wrong" "where: $1" "got: $found bytes" "expected: $2 bytes"
    return 1
  fi
  [ -n "$3" ] || return 0
  found=$(sha256sum "$1" | cut -d' ' -f1)
  if [ "$found" != "$3" ]; then
    complain "the SHA-256 is wrong" "where: $1" "got: $found" "expected: $3"
    return 1
  fi
}

# Moves a file out of the way, beside earlier ones.
set_aside() {
  mv --backup=numbered -- "$1" "$1.rejected" || return
  echo "  kept as: $1.rejected" >&2
}

# fetch URL FILE SIZE SHA256: FILE is there and verified, or the status is not 0.
fetch() {
  local part=$2.part
  if [ -f "$2" ]; then
    if matches "$2" "$3" "$4"; then
      echo "already there: $2"
      return 0
    fi
    set_aside "$2" || return $EXIT_TRANSFER
  fi
  mkdir -p "$(dirname "$2")" || return $EXIT_TRANSFER
  # A part as long as the whole is complete, or wrong; a server could only refuse to go on.
  if [ ! -f "$part" ] || [ -z "$3" ] || [ "$(bytes "$part")" -lt "$3" ]; then
    transfer "$1" "$part" || return $EXIT_TRANSFER
  fi
  if ! matches "$part" "$3" "$4"; then
    set_aside "$part"
    return $EXIT_CONTENT
  fi
  mv -- "$part" "$2" || return $EXIT_TRANSFER
  if [ -n "$4" ]; then
    echo "fetched and verified: $2"
  else
    echo "fetched: $2 ($(bytes "$2") bytes; no SHA-256 is known here to compare it with)"
  fi
}

# transfer URL PART: goes on where PART ends. Nothing here waits for ever.
transfer() {
  local status=0
  curl_to "$1" "$2" --continue-at - || status=$?
  if [ $status -eq $NO_RANGES ] && [ -f "$2" ]; then
    echo "the server cannot go on with a part: from the start" >&2
    set_aside "$2" || return
    status=0
    curl_to "$1" "$2" || status=$?
  fi
  [ $status -ne 0 ] || return 0
  case $status in
    "$PART_TRANSFERRED") complain "the transfer ended early" ;;
    "$HTTP_ERROR") complain "the server refuses: the address may be dead" ;;
    "$WRITE_ERROR") complain "the file cannot be written: is the disk full?" ;;
    *) complain "the transfer failed (curl status $status)" ;;
  esac
  echo "  where: $1" >&2
  [ ! -f "$2" ] || echo "  kept: $(bytes "$2") bytes in $2; the same command goes on from there" >&2
  echo "  fix: try again, or fetch the file by other means and give it with --file" >&2
  return $status
}

curl_to() {
  local url=$1 part=$2
  shift 2
  curl --fail --location --silent --show-error --retry 2 --retry-delay 1 --connect-timeout 30 \
    --speed-limit 100 --speed-time 60 --proto '=http,https,file' --proto-redir '=http,https' \
    --output "$part" "$@" -- "$url"
}

# fetch_npm NAME@VERSION FILE SIZE SHA256: the package file of npm, through npm itself.
fetch_npm() {
  local folder status=0 packed
  if [ -f "$2" ]; then
    if matches "$2" "$3" "$4"; then
      echo "already there: $2"
      return 0
    fi
    set_aside "$2" || return $EXIT_TRANSFER
  fi
  if ! command -v npm >/dev/null; then
    complain "npm is not installed" "fix: install it (Debian, Ubuntu: apt-get install npm), or fetch $1 elsewhere and give it with --file"
    return $EXIT_TRANSFER
  fi
  mkdir -p "$(dirname "$2")" || return $EXIT_TRANSFER
  folder=$(mktemp -d "$(dirname "$2")/npm.XXXXXX") || return $EXIT_TRANSFER
  (cd "$folder" && npm pack --silent "$1" >/dev/null) || status=$?
  packed=$(find "$folder" -maxdepth 1 -name '*.tgz' -print -quit)
  if [ $status -ne 0 ] || [ -z "$packed" ]; then
    rmdir -- "$folder" 2>/dev/null || true
    complain "npm pack $1 failed (status $status)" "fix: try again, or fetch the package elsewhere and give it with --file"
    return $EXIT_TRANSFER
  fi
  mv -- "$packed" "$2.part" || return $EXIT_TRANSFER
  rmdir -- "$folder"
  if ! matches "$2.part" "$3" "$4"; then
    set_aside "$2.part"
    return $EXIT_CONTENT
  fi
  mv -- "$2.part" "$2" || return $EXIT_TRANSFER
  echo "fetched and verified: $2"
}

# local_or_url NAME: sets `got` to a verified local file, from --file or from --url.
local_or_url() {
  if [ -n "$file" ]; then
    [ -f "$file" ] || { complain "the file is not there" "where: $file"; return $EXIT_CONTENT; }
    matches "$file" "$size" "$sha256" || return $EXIT_CONTENT
    got=$file
    return 0
  fi
  [ -n "$sha256" ] || usage_error "--url needs --sha256 (and, if you know it, --size): nothing is taken unverified"
  got=$DOWNLOADS/$1
  fetch "$url" "$got" "$size" "$sha256"
}

# The last part of an address, as a file name.
name_of_url() {
  local name=${1%%[?#]*}
  name=${name##*/}
  echo "${name:-download}"
}

# The archives of the 2018 release, where the authors' scripts had them last (August 2021). Nobody
# has tried these addresses from here, and neither sizes nor SHA-256 are known.
declare -A RELEASE_2018=(
  [pretrained_model.tar.gz]=https://bit.ly/2WgSJ6b
  [sniper_models.tar.gz]=https://bit.ly/3j6mAXJ
  [proposals.tar.gz]=https://bit.ly/3j8SOl7
)

# fetch_release ARCHIVE OTHERWISE: sets `got` to the archive, or says that it could not be had.
# SNIPER_RELEASE_MIRROR is the address of a folder that has the archives.
fetch_release() {
  local address=${RELEASE_2018[$1]} status=0
  [ -z "${SNIPER_RELEASE_MIRROR:-}" ] || address=${SNIPER_RELEASE_MIRROR%/}/$1
  got=$DOWNLOADS/$1
  echo "trying $address, the address of $1 in August 2021"
  fetch "$address" "$got" '' '' || status=$?
  # A dead short address may lead to a page that says so, with the status of success.
  if [ $status -eq 0 ] && ! gzip --test -- "$got" 2>/dev/null; then
    complain "what came is no whole .tar.gz archive" "where: $address" "got: $(bytes "$got") bytes"
    set_aside "$got" || true
    status=$EXIT_CONTENT
  fi
  [ $status -ne 0 ] || return 0
  complain "$1 of the 2018 release was NOT fetched" "fix: give a copy with --file PATH, or $2"
  return $status
}

# local_or_release ARCHIVE OTHERWISE: sets `got`, from --file, from --url or from the release.
local_or_release() {
  if [ -n "$file$url" ]; then
    local_or_url "$(name_of_url "$url")"
  else
    fetch_release "$1" "$2"
  fi
}

# place_copy TOOL ARCHIVE OTHERWISE: what a script does after parse_flags: the user's copy, or the
# ARCHIVE of the 2018 release, goes to the tool.
place_copy() {
  [ ${#rest[@]} -eq 0 ] || usage_error "unexpected argument: ${rest[0]}"
  local_or_release "$2" "$3"
  sniper_tool "$1" "$got" ${member[@]+"${member[@]}"} ${overwrite[@]+"${overwrite[@]}"} --cfg "$cfg" --set ${own[@]+"${own[@]}"}
}
