#!/bin/sh
# Sets up clients of language models for the relay at @url@.
#
#   curl -fsSL @url@/setup.sh | bash
#   curl -fsSL @url@/setup.sh | bash -s -- --key KEY --client codex --yes
#
# It changes settings files only, keeps what they were, and gives it back with --undo. It needs
# curl and the tools of POSIX. Made from the settings of the relay; it holds no key.
set -u
umask 077
if [ -n "${ZSH_VERSION:-}" ]; then emulate sh; fi
LC_ALL=C
export LC_ALL

base=@base@
model=@small@
known=@ids@
separator=$(printf '\036')

usage() {
    cat <<'USAGE'
Usage: setup.sh [options]
  --client NAME   which client to set up; several times, with commas, or `all`
                  @id_list@  [default: asks]
  --key KEY       the key of the relay  [default: $RELAY_KEY, else asks]
  --yes           ask nothing, and start nothing
  --no-launch     do not offer to start the client
  --undo          give back what the files were before
  --help
USAGE
}

say() { printf '%s\n' "$*" >&2; }
good() { say "  ok   $*"; }
warn() { say "  !    $*"; }
fail() {
    say "  no   $*"
    exit 1
}
misuse() {
    say "setup.sh: $*; see --help"
    exit 2
}

# --- questions ---

can_ask() { [ -z "$yes" ] && (: </dev/tty) 2>/dev/null; }

# ask QUESTION: sets `answer`, which may be empty.
ask() {
    printf '%s ' "$1" >/dev/tty
    answer=
    IFS= read -r answer </dev/tty || fail "There was no answer."
}

agrees() {
    ask "$1 [Y/n]"
    case $answer in '' | [Yy]*) return 0 ;; esac
    return 1
}

ask_key() {
    say "The key of the relay; make one at $base/dashboard/keys. It is not shown."
    hidden=yes
    stty -echo </dev/tty
    ask "Key:"
    stty echo </dev/tty
    hidden=
    printf '\n' >/dev/tty
    key=$answer
}

# --- the table of clients ---

@table@

# Whether a client is on this machine.
is_there() {
    describe "$1"
    if [ -n "$command" ]; then
        command -v "$command" >/dev/null 2>&1
        return
    fi
    for folder in "$HOME"/.vscode*/extensions/anthropic.claude-code-* \
        "$HOME"/.cursor*/extensions/anthropic.claude-code-* \
        "$HOME"/.windsurf*/extensions/anthropic.claude-code-*; do
        [ -d "$folder" ] && return 0
    done
    return 1
}

choose_clients() {
    found=
    for client in $known; do
        if is_there "$client"; then
            found="$found $client"
            good "$title is installed."
        fi
    done
    case " $chosen " in
    *' all '*) chosen=$found ;;
    '  ')
        chosen=$found
        if [ -n "$found" ] && can_ask; then
            ask "Which to set up? [${found# }]"
            [ -z "$answer" ] || chosen=$(printf '%s' "$answer" | tr ',' ' ')
        fi
        ;;
    esac
    if [ -z "$chosen" ]; then
        say "  no   There is no client on this machine that this script knows. Install one, for example:"
        for client in $known; do
            describe "$client"
            say "         $title: $install"
        done
        say "       and run this script again. Or name one with --client, to set it up beforehand."
        exit 1
    fi
    for client in $chosen; do
        case " $known " in
        *" $client "*) ;;
        *) misuse "unknown client $client; there are: $known" ;;
        esac
    done
    for client in $chosen; do
        is_there "$client" && continue
        warn "$title is not installed. It is set up all the same. To install it: $install"
    done
}

# --- problems ---

# Variables of the environment, and lines in the files of shells, that a client would go by.
check_variables() {
    seen_variables=
    for client in $chosen; do
        variables "$client"
    done
}

variable() {
    case " $seen_variables " in *" $1 "*) return ;; esac
    seen_variables="$seen_variables $1"
    is_set=
    eval "[ -z \"\${$1:-}\" ] || is_set=yes"
    for file in "$HOME/.zshenv" "$HOME/.zprofile" "$HOME/.zshrc" "$HOME/.bash_profile" \
        "$HOME/.bashrc" "$HOME/.profile" "${XDG_CONFIG_HOME:-$HOME/.config}/fish/config.fish" \
        /etc/environment /etc/profile; do
        [ -r "$file" ] || continue
        lines=$(awk -v "name=$1" '
            $0 ~ "^[ \t]*(export[ \t]+|setenv[ \t]+|set[ \t]+-[a-zA-Z]+[ \t]+)?" name "[= \t]" {
                printf "%s%d", sep, NR
                sep = ", "
            }' "$file")
        [ -n "$lines" ] || continue
        is_set=
        warn "$(short "$file") sets $1 in line $lines: $2. Take that line out, and open a new terminal."
    done
    [ -z "$is_set" ] || warn "$1 is set in this shell: $2. Before you start the client: unset $1"
}

# The proxy that curl uses for the relay, as NAME=value without a password; "" for none.
proxy_variable() {
    case $base in
    https:*) names='https_proxy HTTPS_PROXY all_proxy ALL_PROXY' ;;
    *) names='http_proxy all_proxy ALL_PROXY' ;;
    esac
    for name in $names; do
        eval "value=\${$name:-}"
        [ -n "$value" ] || continue
        printf '%s=%s' "$name" "$value" | sed 's|//[^/@]*@|//***@|'
        return
    done
}

# fetch PATH [curl options]: sets `code` (curl's exit status) and `http`; the answer is in
# $work/answer, its header fields are in $work/fields.
fetch() {
    address=$base$1
    shift
    : >"$work/answer"
    : >"$work/fields"
    code=0
    http=$(curl -sS --connect-timeout 10 --max-time 90 -o "$work/answer" -D "$work/fields" \
        -w '%{http_code}' "$@" "$address" 2>"$work/curl") || code=$?
}

check_connection() {
    proxy=$(proxy_variable)
    fetch /healthz
    if [ "$code" -eq 0 ] && [ "$http" = 200 ]; then
        good "$base answers."
        [ -z "$proxy" ] || warn "It is reached through a proxy: $proxy"
        check_clock
        return
    fi
    first="$code $http"
    host=${base#*://}
    host=${host%%[:/]*}
    if [ -n "$proxy" ]; then
        fetch /healthz --noproxy '*'
        if [ "$code" -eq 0 ] && [ "$http" = 200 ]; then
            fail "The proxy of $proxy does not lead to $base, which answers without it. Go around it: export NO_PROXY=$host no_proxy=$host"
        fi
        warn "A proxy is set: $proxy"
    fi
    code=${first% *}
    http=${first#* }
    case $code in
    0) fail "Something else answers at $base, with status $http. Is a log-in page of the network or a proxy in between?" ;;
    5) fail "The proxy of $proxy is not known by name. Correct that variable, or unset it." ;;
    6) fail "There is no host $host. Check the address and the connection to the Internet." ;;
    7) fail "Nothing answers at $base. The relay is down, or a firewall blocks its port." ;;
    28) fail "No answer from $base within 10 seconds. A firewall blocks its port, or the network is down." ;;
    35 | 51 | 60) fail "The certificate of $base is refused: $(words "$work/curl") Is your clock right? It says $(date)." ;;
    *) fail "$base cannot be reached: $(words "$work/curl")" ;;
    esac
}

# The first line of a file, without control characters.
words() { sed -n 1p "$1" | tr -d '\000-\037\177'; }

# The server's clock against this one, to the second.
check_clock() {
    now=$(date -u +%s)
    skew=$(awk -v "now=$now" '
        tolower($1) == "date:" {
            month = (index("JanFebMarAprMayJunJulAugSepOctNovDec", $4) + 2) / 3
            split($6, part, ":")
            year = $5 - (month <= 2)
            day_of_year = int((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + $3 - 1
            days = 365 * year + int(year / 4) - int(year / 100) + int(year / 400) + day_of_year
            then = (days - 719468) * 86400 + part[1] * 3600 + part[2] * 60 + part[3]
            print now - then
            exit
        }' "$work/fields")
    [ -n "$skew" ] || return 0
    if [ "$skew" -gt 300 ]; then
        warn "Your clock is $((skew / 60)) minutes fast. Set it right: certificates and log-ins depend on it."
    elif [ "$skew" -lt -300 ]; then
        warn "Your clock is $((-skew / 60)) minutes slow. Set it right: certificates and log-ins depend on it."
    fi
}

# --- the key ---

take_key() {
    [ -n "$key" ] || key=${RELAY_KEY:-}
    if [ -z "$key" ]; then
        can_ask || fail "There is no key. Give one with --key or in RELAY_KEY; make it at $base/dashboard/keys"
        ask_key
    fi
    case $key in
    '') fail "There is no key." ;;
    *[!A-Za-z0-9._-]*) fail "That is no key: it has other characters than letters, digits, . _ and -" ;;
    esac
    key_end=$(printf '%s' "$key" | sed 's/.*\(.\{20\}\)$/\1/')
}

# post BODY: asks the model. The key goes to curl in a file, since `ps` shows arguments.
post() {
    printf '%s' "$1" >"$work/body"
    printf 'header = "x-api-key: %s"\n' "$key" >"$work/header"
    fetch /v1/messages -N --config "$work/header" -H 'anthropic-version: 2023-06-01' \
        -H 'content-type: application/json' --data-binary "@$work/body"
}

# What the relay says of an error.
message() {
    awk '{ all = all $0 }
        END {
            if (match(all, /"message" *: *"([^"\\]|\\.)*"/)) {
                all = substr(all, RSTART, RLENGTH)
                sub(/^"message" *: *"/, "", all)
                sub(/"$/, "", all)
                gsub(/\\n/, " ", all)
                gsub(/\\/, "", all)
            }
            print substr(all, 1, 500)
        }' "$work/answer" | tr -d '\000-\037\177'
}

check_key() {
    request="{\"model\": $model, \"max_tokens\": 16, \"messages\": [{\"role\": \"user\", \"content\": \"Say hello\"}]"
    post "$request}"
    [ "$code" -eq 0 ] || fail "The connection broke: $(words "$work/curl")"
    case $http in
    200) good "The key is right, and the model answers." ;;
    401 | 403) fail "The relay refuses the key: $(message) Make another one at $base/dashboard/keys" ;;
    402 | 429)
        warn "The key is right, but it has nothing left: $(message)"
        return
        ;;
    5??)
        warn "The relay cannot answer now: $(message) The settings are written all the same."
        return
        ;;
    *) fail "The relay answers with status $http: $(message)" ;;
    esac
    post "$request, \"stream\": true}"
    if [ "$code" -eq 0 ] && [ "$http" = 200 ] && grep -q '^event: message_stop' "$work/answer"; then
        good "Streams come through."
    else
        warn "A stream does not come through. Does a proxy or a virus scanner in between hold it back? $(words "$work/curl")"
    fi
}

# --- files ---
#
# Each change of a file is a folder in $state: `path`, `old` (what it was; none: it was not there),
# `now` (what it became), `back` (the edits that take the change back, the last one first) and
# `format`. --undo goes through them from the last to the first.

edit_json=@edit_json@
edit_toml=@edit_toml@
edit_yaml=@edit_yaml@
edit_env=@edit_env@

# resolve PATH: sets `target`, the file behind symbolic links.
resolve() {
    target=$1
    hops=0
    while [ -L "$target" ] && [ "$hops" -lt 40 ]; do
        link=$(readlink "$target")
        case $link in
        /*) target=$link ;;
        *) target=$(dirname "$target")/$link ;;
        esac
        hops=$((hops + 1))
    done
}

# make_folder PATH: adds the folders that it makes to `made`, the deepest first.
make_folder() {
    [ -d "$1" ] && return
    make_folder "$(dirname "$1")"
    mkdir "$1" || return 1
    made="$1
$made"
}

# put FILE PATH: puts a file in another's place, in one step.
put() {
    new=$(mktemp "$(dirname "$2")/.relay-setup.XXXXXX") || return 1
    cp -p "$1" "$new" && mv -f "$new" "$2" && return
    rm -f "$new"
    return 1
}

# A path as people write it.
short() {
    case $1 in
    "$HOME"/*) printf '~%s' "${1#"$HOME"}" ;;
    *) printf '%s' "$1" ;;
    esac
}

# begin FORMAT PATH [only_there]: the edits that follow are of this file; only_there: nothing
# happens (`skip`) unless its folder exists.
begin() {
    format=$1
    shown=$(short "$2")
    refused=
    skip=
    if [ -n "${3:-}" ] && [ ! -d "$(dirname "$2")" ]; then
        skip=yes
        return
    fi
    : >"$work/back"
    : >"$work/paste"
    : >"$work/notes"
    resolve "$2"
    if [ -f "$target" ]; then
        cp "$target" "$work/now" 2>/dev/null || refused="it cannot be read"
        tr -d '\000' <"$work/now" >"$work/text"
        cmp -s "$work/text" "$work/now" || refused="it has octets that are no text"
    elif [ -e "$target" ]; then
        : >"$work/now"
        refused="it is no file"
    else
        : >"$work/now"
    fi
}

# apply OPERATION PLACE VALUE FILE: edits FILE. Sets `changed`; its edits back are in $work/step.
apply() {
    : >"$work/step"
    changed=
    if [ "$format" = text ]; then
        printf '%s\n' "$3" | cmp -s - "$4" && return
        printf '%s\n' "$3" >"$4"
        changed=yes
        return
    fi
    case $format in
    json) program=$edit_json ;;
    toml) program=$edit_toml ;;
    yaml) program=$edit_yaml ;;
    *) program=$edit_env ;;
    esac
    OP=$1 AT=$2 VALUE=$3 BACK=$work/step awk "$program" "$4" >"$work/edited" 2>"$work/reason" || {
        reason=$(words "$work/reason")
        return 1
    }
    [ -s "$work/step" ] || return 0
    changed=yes
    cp "$work/edited" "$4"
}

# edit OPERATION PLACE VALUE NOTE: one edit of the file that was begun.
edit() {
    [ -z "$skip" ] || return 0
    value=$3
    if [ "$1" = set ]; then
        apply set "$2" "$(printf '%s' "$3" | sed "s/$key/YOUR_KEY/g")" "$work/paste"
    fi
    [ -z "$refused" ] || return 0
    if ! apply "$1" "$2" "$value" "$work/now"; then
        refused="it has ${reason:-something unexpected}"
        return 0
    fi
    [ -n "$changed" ] || return 0
    cat "$work/step" "$work/back" >"$work/both"
    cp "$work/both" "$work/back"
    [ -z "$4" ] || printf '%s\n' "$4" >>"$work/notes"
}

# rival PATH: warns of a file that the client prefers.
rival() {
    [ ! -e "$1" ] || warn "$(short "$1") is read too, and what it says wins. Check its model and provider."
}

# finish: writes the file that was begun, or says what to put into it.
finish() {
    [ -z "$skip" ] || return 0
    if [ -z "$refused" ] && { [ -f "$target" ] && cmp -s "$work/now" "$target"; }; then
        good "$shown is as it should be."
        return
    fi
    if [ -z "$refused" ] && [ ! -s "$work/back" ] && [ "$format" != text ]; then
        good "$shown is as it should be."
        return
    fi
    [ -n "$refused" ] || keep || refused="it cannot be written"
    if [ -n "$refused" ]; then
        failed=yes
        say "  no   $shown is left as it is: $refused. Put this into it by hand, with your key:"
        sed 's/^/         /' "$work/paste" >&2
        return
    fi
    good "$shown is written."
    while IFS= read -r note; do warn "$shown: $note"; done <"$work/notes"
}

# keep: notes the change of $target to $work/now in $state, and makes it.
keep() {
    made=
    make_folder "$(dirname "$target")" && make_folder "$state" || return 1
    [ -e "$state/first" ] || printf '%s\n' "$made" >"$state/first"
    number=$(count_changes)
    entry=$state/$(printf '%04d' "$((number + 1))")
    mkdir "$entry.part" || return 1
    [ ! -f "$target" ] || cp -p "$target" "$entry.part/old" || return 1
    printf '%s\n' "$made" >"$entry.part/made"
    printf '%s\n' "$target" >"$entry.part/path"
    printf '%s\n' "$format" >"$entry.part/format"
    cp "$work/now" "$entry.part/now" && cp "$work/back" "$entry.part/back" || return 1
    chmod 600 "$entry.part/now"
    mv "$entry.part" "$entry" && put "$entry/now" "$target"
}

count_changes() {
    count=0
    for one in "$state"/[0-9][0-9][0-9][0-9]; do
        [ -d "$one" ] && count=$((count + 1))
    done
    echo "$count"
}

undo() {
    number=$(count_changes)
    [ "$number" -gt 0 ] || fail "There is nothing to undo: no change of this script is noted in $state"
    while [ "$number" -gt 0 ]; do
        entry=$state/$(printf '%04d' "$number")
        undo_change || fail "$shown cannot be given back; what it was is $entry/old"
        remove_folders "$entry/made"
        rm -rf "$entry"
        number=$((number - 1))
    done
    cp "$state/first" "$work/first"
    rm -rf "$state"
    remove_folders "$work/first"
    good "All settings are as they were."
}

# Folders that were made and are empty again.
remove_folders() {
    while IFS= read -r folder; do
        [ -z "$folder" ] || rmdir "$folder" 2>/dev/null || :
    done <"$1"
}

undo_change() {
    target=$(cat "$entry/path")
    shown=$(short "$target")
    format=$(cat "$entry/format")
    if [ ! -e "$target" ] || cmp -s "$target" "$entry/now"; then
        give_back
    elif [ -f "$entry/old" ] && cmp -s "$target" "$entry/old"; then
        return 0
    elif take_out; then
        return 0
    else
        cp -p "$target" "$target.before-undo" || return 1
        warn "$shown was changed since. That version is kept as $shown.before-undo"
        give_back
    fi
}

give_back() {
    if [ -f "$entry/old" ]; then
        put "$entry/old" "$target" && good "$shown is as it was."
    else
        rm -f "$target" && good "$shown is gone again."
    fi
}

# take_out: takes the edits out of a file that was changed since, and leaves all else.
take_out() {
    [ -s "$entry/back" ] || return 1
    cp -p "$target" "$work/now" || return 1
    tab=$(printf '\t')
    while IFS= read -r step; do
        operation=${step%%"$tab"*}
        step=${step#*"$tab"}
        apply "$operation" "${step%%"$tab"*}" "${step#*"$tab"}" "$work/now" || return 1
    done <"$entry/back"
    if [ ! -f "$entry/old" ] && ! tr -d '{} \t\r\n' <"$work/now" | grep -q .; then
        rm -f "$target" && good "$shown is gone again."
        return
    fi
    put "$work/now" "$target" &&
        good "$shown was changed since; the settings of the relay are taken out of it."
}

# --- all of it ---

finally() {
    [ -z "${hidden:-}" ] || stty echo </dev/tty
    rm -rf "$work"
}

read_options() {
    key=''
    yes=''
    chosen=''
    launch=yes
    wants_undo=''
    failed=''
    hidden=''
    while [ $# -gt 0 ]; do
        case $1 in
        --key | --client)
            [ $# -ge 2 ] && [ -n "$2" ] || misuse "$1 needs a value"
            if [ "$1" = --key ]; then key=$2; else chosen="$chosen $(printf '%s' "$2" | tr ',' ' ')"; fi
            shift
            ;;
        --key=*) key=${1#*=} ;;
        --client=*) chosen="$chosen $(printf '%s' "${1#*=}" | tr ',' ' ')" ;;
        --yes | -y) yes=yes ;;
        --no-launch) launch= ;;
        --undo) wants_undo=yes ;;
        --help | -h)
            usage
            exit 0
            ;;
        *) misuse "unknown option $1" ;;
        esac
        shift
    done
    chosen=${chosen# }
}

set_folders() {
    [ -n "${HOME:-}" ] || fail "HOME is not set."
    claude_folder=${CLAUDE_CONFIG_DIR:-$HOME/.claude}
    claude_state_folder=${CLAUDE_CONFIG_DIR:-$HOME}
    codex_folder=${CODEX_HOME:-$HOME/.codex}
    hermes_folder=${HERMES_HOME:-$HOME/.hermes}
    opencode_folder=${XDG_CONFIG_HOME:-$HOME/.config}/opencode
    editors=${XDG_CONFIG_HOME:-$HOME/.config}
    [ "$(uname)" != Darwin ] || editors="$HOME/Library/Application Support"
    code_folder=$editors/Code/User
    cursor_folder=$editors/Cursor/User
    windsurf_folder=$editors/Windsurf/User
    state=${XDG_STATE_HOME:-$HOME/.local/state}/relay-setup
    # As a text in quotes, for settings that name the file.
    key_file=$(printf '%s' "$codex_folder/relay-key" | sed 's/["\\]/\\&/g')
    read_file="command = \"cat\"${separator}args = [\"$key_file\"]"
}

offer_launch() {
    [ -n "$launch" ] && can_ask || return 0
    for client in $chosen; do
        is_there "$client" && [ -n "$command" ] || continue
        agrees "Start $title now?" || return 0
        "$command" </dev/tty
        return
    done
}

main() {
    read_options "$@"
    set_folders
    for tool in curl awk; do
        command -v "$tool" >/dev/null 2>&1 || fail "This script needs $tool. Install it first."
    done
    work=$(mktemp -d "${TMPDIR:-/tmp}/relay-setup.XXXXXX") || fail "There is no place for temporary files."
    trap finally EXIT
    trap 'exit 130' INT HUP TERM
    if [ -n "$wants_undo" ]; then
        undo
        return
    fi
    [ -n "$known" ] || fail "This relay serves no model yet. Ask its operator."
    say "Clients for $base"
    if [ "$(id -u)" = 0 ] && [ -n "${SUDO_USER:-}" ]; then
        warn "This runs by sudo: the settings of $(id -un) are written, not those of $SUDO_USER."
    fi
    choose_clients
    check_variables
    check_connection
    take_key
    check_key
    if can_ask; then
        agrees "Write the settings of: ${chosen# }?" || fail "Nothing was changed."
    elif [ -z "$yes" ]; then
        fail "There is no terminal to ask on. Say --yes, and nothing is asked."
    fi
    for client in $chosen; do
        write "$client"
    done
    [ -z "$failed" ] || exit 1
    say "Done. To take it back: curl -fsSL $base/setup.sh | bash -s -- --undo"
    offer_launch
}

# The braces end with the script: of a download that was cut short, nothing runs.
{
    main "$@"
    exit
}
