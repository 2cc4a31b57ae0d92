# Packages: what apt is asked, what it is told, and that nothing on the machine changes unsaid.
# Sourced by scripts/setup, whose sh
# has `local`, as all have that Debian and its like call sh.

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif [ -t 0 ]; then
        sudo "$@"
    else
        sudo -n "$@" # without a terminal a password prompt would wait for ever
    fi
}

# Whether packages can be installed at all.
may_install() {
    [ "$(id -u)" != 0 ] || return 0
    have sudo && { [ -t 0 ] || sudo -n true 2>/dev/null; }
}

# apt WHO SECONDS ARGUMENTS...: apt-get with a limit for every wait. What it says goes to
# build/setup.log; of a failure its last words are shown.
apt() {
    local who=$1 limit=$2 status=0
    shift 2
    "$who" env DEBIAN_FRONTEND=noninteractive timeout -k 10 "$limit" apt-get -qq \
        -o Dpkg::Use-Pty=0 -o Dpkg::Progress-Fancy=0 \
        -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 -o Acquire::Retries=1 \
        -o DPkg::Lock::Timeout=60 "$@" </dev/null >"$log" 2>&1 || status=$?
    [ $status = 0 ] || tail -n 3 "$log" >&2
    return $status
}

cannot= # why nothing can be installed
updated=0
apt_update() {
    [ $updated = 0 ] || return 0
    updated=1
    if may_install; then
        say "refreshing the package lists (apt-get update)"
        apt as_root 180 update || say "apt-get update failed; going on with the lists that are here"
    else
        private_update || say "going on with the lists that are here"
    fi
}

# candidate PACKAGE: the version apt would take, empty when there is none.
candidate() {
    LC_ALL=C look apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: \([0-9].*\)/\1/p'
}

# The suites that have the package, with the newest version first.
suites() {
    LC_ALL=C apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *[0-9]\{1,\} [^ ]* \([^ /]*\)\/.*/\1/p' | awk '!seen[$0]++'
}

# simulate WHO ARGUMENTS...: what apt would do, a line for each package: `Inst NAME [OLD] (NEW ...`
# and `Remv NAME ...`.
simulate() {
    local who=$1
    shift
    "$who" env LC_ALL=C timeout -k 10 120 apt-get -s --no-install-recommends install "$@" </dev/null 2>&1
}

# fits ARGUMENTS...: whether installing takes nothing away from the machine. Leaves apt's plan in
# $plan, and in $against what speaks against it.
fits() {
    against=
    plan=$(simulate env "$@") || against=$(echo "$plan" | sed -n 's/^E: //p' | head -n 1)
    removed=$(echo "$plan" | sed -n 's/^Remv \([^ ]*\).*/\1/p' | tr '\n' ' ')
    [ -z "$removed" ] || against="installing $* would remove ${removed% }"
    case $plan in *DOWNGRADED*) against="installing $* would downgrade others" ;; esac
    [ -z "$against" ]
}

upgrades() { echo "$plan" | sed -n 's/^Inst \([^ ]*\) \[.*/\1/p' | tr '\n' ' '; }

# install_now ARGUMENTS...: after `fits`. All that changes on the machine is said.
install_now() {
    local more newer
    more=$(echo "$plan" | sed -n 's/^Inst \([^ ]*\) (.*/\1/p' | while read -r name; do
        case " $* " in *" $name "*) ;; *) echo "$name" ;; esac
    done | tr '\n' ' ')
    newer=$(upgrades)
    say "installing: $*${more:+; with it: ${more% }}${newer:+; upgrading: ${newer% }}"
    # What has changed since the plan was made is refused, not swapped in.
    apt as_root 900 install -y --no-remove --no-install-recommends "$@"
}

# take PACKAGE...: installs all of them if that fits. Lists that are missing or old are refreshed.
take() {
    [ -z "$cannot" ] || { against=$cannot; return 1; }
    fits "$@" || { [ -z "$removed" ] && [ $updated = 0 ] && apt_update && fits "$@"; } || return 1
    install_now "$@" && return 0
    [ $updated = 1 ] || { apt_update && fits "$@" && install_now "$@" && return 0; }
    cannot="apt-get failed"
    against=$cannot
    return 1
}

# take_from_a_suite PACKAGE...: what does not fit in the version that apt prefers may in another,
# which then must not change what is there.
take_from_a_suite() {
    local suite reason=$against
    [ -z "$cannot" ] || return 1
    for suite in $(suites "$1"); do
        fits -t "$suite" "$@" && [ -z "$(upgrades)" ] || continue
        say "$reason; $suite has one that fits"
        install_now -t "$suite" "$@" && return 0
    done
    against=$reason
    return 1
}

# install_packages GROUP...: packages with commas between them are had in one way.
install_packages() {
    [ $# -gt 0 ] || return 0
    local all group failed=
    all=$(echo "$*" | tr , ' ')
    [ $check = 0 ] || { say "missing packages: $all"; return 1; }
    if ! have apt-get; then
        say "this system has no apt-get; install by hand what Debian calls: $all"
        return 1
    fi
    may_install || cannot="neither root nor sudo"
    # shellcheck disable=SC2086  # packages, one word each
    take $all && return 0
    for group in "$@"; do
        group=$(echo "$group" | tr , ' ')
        # shellcheck disable=SC2086
        private_can $group || [ -z "$cannot" ] || failed="$failed $group"
    done
    if [ -z "$failed" ]; then
        for group in "$@"; do
            group=$(echo "$group" | tr , ' ')
            # shellcheck disable=SC2086
            take $group || take_from_a_suite $group || { private_can $group && private_fetch "$against" $group; } || failed="$failed $group"
        done
    fi
    [ -n "$failed" ] || return 0
    if may_install; then
        say "could not install them (${against:-apt-get failed}); by hand: apt-get install --no-install-recommends $all"
    else
        say "neither root nor sudo, and without an installation there is no way to:$failed"
        say "have root run: apt-get install --no-install-recommends$failed"
    fi
    return 1
}
