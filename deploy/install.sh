#!/bin/sh
# Installs relay on this machine as a service, and makes the first account and its key.
#
#   curl -fsSL https://HOST/install.sh | sudo RELAY_DIST=https://HOST sh -s -- \
#       --domain relay.example --email you@example.com
#
# RELAY_DIST (or --dist) is where relay.pyz and SHA256SUMS are: a URL, or a folder on this machine.
# Running it again installs the newer version and keeps settings, accounts and keys.
set -eu
umask 022

usage() {
    cat <<'USAGE'
Usage: install.sh [options]
  --dist URL|FOLDER    where relay.pyz and SHA256SUMS are    [default: $RELAY_DIST]
  --domain NAME        serve https on ports 443 and 80, with certificates for this name
  --url URL            without --domain: address that users will have, such as that of a proxy
  --listen ADDRESS     without --domain: address to listen on  [default: 127.0.0.1:8080]
  --email ADDRESS      of the first account; "" for none
  --upstream-key FILE  a file with the API key of api.anthropic.com
  --python PATH        the Python to use                     [default: the newest that is found]
  --root FOLDER        install below this folder, without users and services (for images, tests)
  --dry-run            show what would be done, change nothing
  --help
What is not given is asked for, if there is a terminal.
USAGE
}

say() { printf '%s\n' "relay: $*" >&2; }
fail() {
    say "$*"
    exit 1
}
misuse() {
    say "$*; see --help"
    exit 2
}

dist=${RELAY_DIST:-}
domain=
url=
listen=
email=
email_given=
upstream_key=
python=
root=
dry_run=

while [ $# -gt 0 ]; do
    case $1 in
    --dist | --domain | --url | --listen | --email | --upstream-key | --python | --root)
        [ $# -ge 2 ] || misuse "$1 needs a value"
        case $1 in
        --dist) dist=$2 ;;
        --domain) domain=$2 ;;
        --url) url=$2 ;;
        --listen) listen=$2 ;;
        --email)
            email=$2
            email_given=yes
            ;;
        --upstream-key) upstream_key=$2 ;;
        --python) python=$2 ;;
        --root) root=${2%/} ;;
        esac
        shift 2
        ;;
    --dry-run)
        dry_run=yes
        shift
        ;;
    --help | -h)
        usage
        exit 0
        ;;
    *) misuse "unknown option $1" ;;
    esac
done

# Answers come from the terminal: standard input is this script when it is piped into sh.
ask() { # question, default
    answer=
    if [ -z "$root" ] && [ -r /dev/tty ] && (: </dev/tty) 2>/dev/null; then
        printf '%s [%s]: ' "$1" "$2" >/dev/tty
        IFS= read -r answer </dev/tty || answer=
    fi
    printf '%s' "${answer:-$2}"
}

run() { # a command, shown only with --dry-run
    if [ -n "$dry_run" ]; then
        printf '+ %s\n' "$*"
    else
        "$@"
    fi
}

as_relay() { # as the service's user
    if [ -n "$root" ]; then
        "$@"
    elif command -v runuser >/dev/null 2>&1; then
        runuser -u relay -- "$@"
    else
        # shellcheck disable=SC2016 # expanded by the inner shell
        su -s /bin/sh relay -c 'exec "$0" "$@"' -- "$@"
    fi
}

is_new_enough() {
    "$1" -c 'import sys, sqlite3, ssl
sys.exit(sys.version_info < (3, 11) or sys.implementation.name != "cpython")' 2>/dev/null
}

find_python() {
    if [ -n "$python" ]; then
        is_new_enough "$python" || fail "$python is no CPython 3.11 or newer with sqlite3 and ssl"
        return
    fi
    for name in python3.14 python3.13 python3.12 python3.11 python3; do
        python=$(command -v "$name" 2>/dev/null) || continue
        if is_new_enough "$python"; then
            return
        fi
    done
    if command -v apt-get >/dev/null 2>&1; then
        how="apt-get install python3 (Debian 12, Ubuntu 23.04 or newer), or python3.11"
    elif command -v dnf >/dev/null 2>&1; then
        how="dnf install python3.11"
    elif command -v apk >/dev/null 2>&1; then
        fail "relay.pyz has no modules for Alpine's C library; use the Dockerfile"
    else
        how="install it with this system's packages"
    fi
    fail "there is no Python 3.11 or newer here: $how, then run this again"
}

fetch() { # name, target
    case $dist in
    http://* | https://*)
        if command -v curl >/dev/null 2>&1; then
            curl --fail --silent --show-error --location --output "$2" "${dist%/}/$1"
        elif command -v wget >/dev/null 2>&1; then
            wget --quiet --output-document="$2" "${dist%/}/$1"
        else
            fail "there is neither curl nor wget to fetch $1 with"
        fi || fail "$1 cannot be fetched from $dist"
        ;;
    *)
        [ -f "$dist/$1" ] || fail "there is no $dist/$1"
        cp "$dist/$1" "$2"
        ;;
    esac
}

write_settings() { # target
    {
        printf '# Settings of relay. To find mistakes: relay check --config %s\n' "$etc/relay.toml"
        if [ -n "$domain" ]; then
            printf '[server]\nlisten = ["[::]:443", "0.0.0.0:443"]\npublic_url = "%s"\n' "$url"
            printf 'tls = "auto"\ndomains = ["%s"]\n\n' "$domain"
            [ -z "$email" ] || printf '[acme]\nemail = "%s"\n\n' "$email"
        else
            printf '[server]\nlisten = ["%s"]\npublic_url = "%s"\n\n' "$listen" "$url"
        fi
        printf '[database]\npath = "%s/relay.db"\n\n' "$state"
        printf '[backup]\npath = "%s/backups"\n\n' "$state"
        if [ -n "$upstream_key" ]; then
            printf '[[upstream]]\nname = "anthropic"\nbase_url = "https://api.anthropic.com"\n'
            printf 'api_key = "file:%s/anthropic.key"\n\n' "$etc"
        else
            printf '# [[upstream]]\n# name = "anthropic"\n# base_url = "https://api.anthropic.com"\n'
            printf '# api_key = "file:%s/anthropic.key"\n\n' "$etc"
        fi
        for model in claude-opus-4-8 claude-sonnet-4-7 claude-haiku-4-5; do
            printf '[[model]]\nid = "%s"\n\n' "$model"
        done
        printf '[[plan]]\nid = "unlimited"\nname = "Unlimited"\n'
    } >"$1"
}

is_plain() { # a value that goes into quotes in relay.toml
    case $1 in
    '' | *[!A-Za-z0-9._:/@+~%\[\]-]*) return 1 ;;
    esac
}

is_domain() { # a name that certificates are for, in lower case
    case $1 in
    *[!a-z0-9.-]* | [!a-z0-9]* | *[!a-z0-9]) return 1 ;;
    *.*) ;;
    *) return 1 ;;
    esac
}

case $dist in
'') misuse "give --dist or RELAY_DIST: a URL or a folder with relay.pyz and SHA256SUMS" ;;
esac
if [ -z "$root" ] && [ -z "$dry_run" ] && [ "$(id -u)" != 0 ]; then
    fail "run this as root: it installs a service"
fi
[ "$(uname -s)" = Linux ] || fail "this installs on Linux only"
find_python

opt=$root/opt/relay
etc=$root/etc/relay
state=$root/var/lib/relay
relay=$opt/current/bin/relay

if [ ! -f "$etc/relay.toml" ]; then
    if [ -n "$domain" ] && [ -n "$url$listen" ]; then
        misuse "--domain sets the address: leave out --url and --listen"
    fi
    [ -n "$domain$url" ] || domain=$(ask "Domain name of this machine, for https (none: Enter)" "")
    if [ -n "$domain" ]; then
        is_domain "$domain" || misuse "--domain: $domain is no name such as relay.example"
        url=https://$domain
    fi
    [ -n "$url" ] || url=$(ask "Address that users will have" "http://127.0.0.1:8080")
    is_plain "$url" || misuse "--url: $url is no address such as https://relay.example"
    [ -n "$listen" ] || listen=127.0.0.1:8080
    is_plain "$listen" || misuse "--listen: $listen is no address such as 127.0.0.1:8080"
    [ -n "$email_given" ] || email=$(ask "E-mail address of the first account" "")
    [ -z "$email" ] || is_plain "$email" || misuse "--email: $email is no address such as you@example.com"
    if [ -n "$upstream_key" ] && [ ! -r "$upstream_key" ]; then
        fail "--upstream-key: $upstream_key cannot be read"
    fi
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/relay-install.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
fetch SHA256SUMS "$work/SHA256SUMS"
fetch relay.pyz "$work/relay.pyz"
(cd "$work" && grep '  relay\.pyz$' SHA256SUMS >sum && sha256sum -c sum >/dev/null 2>&1) ||
    fail "relay.pyz is not what SHA256SUMS says; nothing was installed"
RELAY_CACHE=$work/cache "$python" "$work/relay.pyz" --version >"$work/version" ||
    fail "relay.pyz does not run on $python; nothing was installed"
version=$(sed "s/^relay, version //" "$work/version") # and whether it is compiled

if [ -z "$root" ] && ! id relay >/dev/null 2>&1; then
    run useradd --system --home-dir "$state" --shell /usr/sbin/nologin relay
fi
for folder in "$opt" "$etc" "$state"; do
    run mkdir -p "$folder"
done
run chmod 0755 "$opt"
run chmod 0750 "$etc" "$state"

first=
if [ ! -f "$etc/relay.toml" ]; then
    first=yes
    write_settings "$work/relay.toml"
    if [ -n "$upstream_key" ]; then
        run cp "$upstream_key" "$etc/anthropic.key"
        run chmod 0640 "$etc/anthropic.key"
    fi
    run cp "$work/relay.toml" "$etc/relay.toml"
    run chmod 0640 "$etc/relay.toml"
fi
if [ -z "$root" ]; then
    run chown -R root:relay "$etc"
    run chown -R relay:relay "$state"
fi
# Each version is a folder of its own. Where the relay runs, it hands over to the new one.
run_new() { # the arguments of the new relay
    run env RELAY_CACHE="$work/cache" "$python" "$work/relay.pyz" "$@"
}
run_new check --config "$etc/relay.toml" >"$work/check" || {
    cat "$work/check" >&2
    fail "$etc/relay.toml has an error; mend it and run this again"
}
run_new upgrade "$work/relay.pyz" --folder "$opt" --config "$etc/relay.toml" >"$work/upgrade" || {
    fail "the version before this one goes on"
}
if [ -n "$dry_run" ]; then
    cat "$work/check" "$work/upgrade"
else
    cat "$work/upgrade" >&2
fi
# The command for the shell finds the settings from every folder.
{
    # shellcheck disable=SC2016 # expanded by the script that is written
    printf '#!/bin/sh\nexport RELAY_CONFIG="${RELAY_CONFIG:-%s}"\n' "$etc/relay.toml"
    printf 'exec %s "$@"\n' "$relay"
} >"$work/relay"
run mkdir -p "$root/usr/local/bin"
run cp "$work/relay" "$root/usr/local/bin/relay"
run chmod 0755 "$root/usr/local/bin/relay"

if [ -z "$root" ]; then
    run "$relay" service install --user relay --config "$etc/relay.toml" >"$work/service"
    if [ -n "$dry_run" ]; then
        cat "$work/service"
    else
        cat "$work/service" >&2 # the key alone goes to standard output
    fi
fi
if [ -n "$first" ] && [ -n "$email" ]; then
    if [ -n "$dry_run" ]; then
        run "$relay" user create "$email" --admin --config "$etc/relay.toml"
        run "$relay" user link "$email" --config "$etc/relay.toml"
        run "$relay" key create --user "$email" --config "$etc/relay.toml"
    else
        as_relay "$relay" user create "$email" --admin --config "$etc/relay.toml" >&2
        say "set the password of $email for the dashboard, within a day:"
        as_relay "$relay" user link "$email" --config "$etc/relay.toml" >&2
        as_relay "$relay" key create --user "$email" --config "$etc/relay.toml"
    fi
fi
if [ -n "$first" ] && [ -z "$email" ] && [ -z "$dry_run" ]; then
    say "open the first account, an administrator's, within 7 days:"
    as_relay "$relay" user link --config "$etc/relay.toml" >&2
fi
if [ -n "$dry_run" ]; then
    say "nothing was changed"
    exit 0
fi
say "version $version is installed; settings: $etc/relay.toml"
if [ -n "$first" ] && [ -z "$upstream_key" ]; then
    say "no request can be served yet: put an API key into $etc/anthropic.key, and remove the # before [[upstream]]"
fi
