# The private folder: programs that the machine lacks and that cannot or should not be installed,
# unpacked below $build/private with the libraries they need. Sourced by scripts/setup.
#
#   root   what was unpacked
#   bin    a wrapper for each program, which alone sees the unpacked libraries
#   apt    apt's view of this machine, which any user may write
#
# A wrapper is left only if its program starts. scripts/setup, scripts/cargo and scripts/lib/paths.py
# look into bin before they look into PATH.

private=$build/private
private_programs='qemu-system-aarch64 gdb-multiarch ld.lld rustc rustdoc cargo rustfmt cargo-fmt cargo-clippy clippy-driver'

# Whether all of these can be unpacked. Others are set up by their installation, or have fixed paths.
private_can() {
    local package
    for package in "$@"; do
        case $package in
            qemu-system-arm | gdb-multiarch | lld) ;;
            rustc* | cargo* | rust-* | rustfmt*) ;;
            *) return 1 ;;
        esac
    done
}

# Has apt keep what it writes below $private. In a file, since the paths may have blanks.
private_view() {
    mkdir -p "$private/apt/cache/archives/partial" "$private/apt/debs"
    private_apt=$(cd "$private/apt" && pwd)
    view=$private_apt/apt.conf
    {
        echo "Dir::Cache \"$private_apt/cache\";"
        echo 'APT::Sandbox::User "root";'
        [ ! -d "$private/apt/lists" ] || echo "Dir::State::lists \"$private_apt/lists\";"
        [ ! -d "$private/apt/sources.list.d" ] || echo "Dir::Etc::sourceparts \"$private_apt/sources.list.d\";"
    } >"$view"
}

# look COMMAND...: the command asks the private view, once there is one.
view=
look() { env ${view:+"APT_CONFIG=$view"} "$@"; }

# Fetches package lists of our own: from the machine's sources, and from the one in $more_sources.
more_sources=
private_update() {
    local file
    rm -rf "$private/apt/lists" "$private/apt/sources.list.d"
    mkdir -p "$private/apt/lists/partial" "$private/apt/sources.list.d"
    for file in /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        [ ! -r "$file" ] || cp "$file" "$private/apt/sources.list.d"
    done
    [ -z "$more_sources" ] || echo "$more_sources" >"$private/apt/sources.list.d/vmwalk-more.list"
    private_view
    say "fetching package lists into $private/apt; the machine's stay as they are"
    apt look 180 update && return 0
    rm -rf "$private/apt/lists" "$private/apt/sources.list.d"
    private_view
    return 1
}

# Prints the source of a suite that Debian has, this machine does not list, and that has newer compilers.
private_security_suite() {
    local codename targets archive keys
    codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release 2>/dev/null)
    grep -qx 'ID=debian' /etc/os-release 2>/dev/null && [ -n "$codename" ] || return 1
    targets=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 2>/dev/null | sort -u)
    case $targets in *" $codename-security"*) return 1 ;; esac
    archive=$(echo "$targets" | sed -n "s|debian/* $codename\$|debian-security|p" | head -n 1)
    # Of a mirror that is laid out in its own way, no address follows.
    [ -n "$archive" ] || return 1
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    [ ! -e $keys ] && keys= || keys=" [signed-by=$keys]"
    echo "deb$keys $archive $codename-security main"
}

# private_plan PACKAGE...: prints NAME=VERSION of each package that they need and the machine lacks.
#
# In the dpkg status that apt plans with, no installed package has relations, so that none is in the
# way, and none is of the same sources, so that these come complete and in one version.
private_plan() {
    local package from sources=' '
    for package in "$@"; do
        from=$(LC_ALL=C look apt-cache show --no-all-versions "$package" 2>/dev/null | sed -n 's/^Source: \([^ ]*\).*/\1/p' | head -n 1)
        sources="$sources${from:-$package} "
    done
    awk -v RS= -v ORS='\n\n' -v sources="$sources" '
        {
            lines = split($0, line, "\n"); text = name = from = ""; keep = 1
            for (i = 1; i <= lines; i++) {
                if (line[i] !~ /^[ \t]/) keep = line[i] !~ /^(Pre-Depends|Depends|Recommends|Suggests|Enhances|Breaks|Conflicts|Replaces):/
                if (line[i] ~ /^Package: /) name = substr(line[i], 10)
                if (line[i] ~ /^Source: /) { split(line[i], word, " "); from = word[2] }
                if (keep) text = text (text == "" ? "" : "\n") line[i]
            }
            if (index(sources, " " (from == "" ? name : from) " ") == 0) print text
        }' /var/lib/dpkg/status >"$private/apt/status"
    simulate look -o Dir::State::status="$private_apt/status" "$@" >"$private/apt/plan" || { grep '^E: ' "$private/apt/plan" >&2; return 1; }
    sed -n 's/^Inst \([^ ]*\) \(\[[^]]*\] \)\{0,1\}(\([^ ]*\) .*/\1=\3/p' "$private/apt/plan"
}

private_download() {
    rm -f "$private"/apt/debs/*.deb
    (cd "$private/apt/debs" && apt look 900 download "$@")
}

# private_unpack FILE: without what a compiler's source package has beside the library, which is ten
# times as many files, and flash images of 64 MiB.
private_unpack() {
    mkdir -p "$private/root"
    dpkg --fsys-tarfile "$1" | tar -x -C "$private/root" --no-same-owner \
        --no-wildcards-match-slash --exclude './usr/share/doc' --exclude './usr/share/AAVMF' \
        --exclude './usr/src/rustc-*/src' --exclude './usr/src/rustc-*/compiler'
}

# private_fetch WHY PACKAGE...: unpacks the packages and what they need.
private_fetch() {
    local why=$1 plan deb
    shift
    # A compiler's packages have to lie in one place.
    # shellcheck disable=SC2086  # packages, one word each
    case " $family " in *" $1 "*) set -- $family ;; esac
    private_view
    plan=$(private_plan "$@") || { private_update && plan=$(private_plan "$@"); } || return 1
    say "$why: unpacking $* and what it needs, $(echo "$plan" | wc -l) packages, into $private instead; nothing is installed"
    # Lists that are older than the archive name files that are gone.
    # shellcheck disable=SC2086  # packages, one word each
    private_download $plan || { private_update && plan=$(private_plan "$@") && private_download $plan; } || return 1
    for deb in "$private"/apt/debs/*.deb; do
        private_unpack "$deb" || return 1
    done
    rm -f "$private"/apt/debs/*.deb
    private_wrap
}
family= # of the distribution's compiler, set where it is chosen

# The folders with libraries below $private/root, with `:` between them.
private_libraries() {
    (cd "$private/root" && find . -name 'lib*.so*' | sed 's|/[^/]*$||; s|^\.|$root|' | sort -u | tr '\n' ':' | sed 's/:$//')
}

private_wrap() {
    local top program file link folder
    mkdir -p "$private/bin"
    top=$(cd "$private/root" && pwd -P)
    libraries=$(private_libraries)
    for program in $private_programs; do
        for file in "$top/usr/bin/$program" "$top"/usr/lib/rust-1.*/bin/"$program"; do
            if [ -L "$file" ] && [ ! -e "$file" ]; then
                # It leads to a package that is installed. Its last name stays: some programs go by theirs.
                link=$(readlink "$file")
                folder=$(readlink -m "${file%/*}/$(dirname "$link")")
                file=${folder#"$top"}/$(basename "$link")
            fi
            [ -x "$file" ] || continue
            private_wrapper "$program" "$(echo "$file" | sed "s|^$top/|\$root/|")" || return 1
            break
        done
    done
}

# private_wrapper PROGRAM FILE
private_wrapper() {
    local arguments=
    case $1 in
        qemu-system-*) arguments=' -L "$root/usr/share/qemu"' ;;
        gdb-*) arguments=' --data-directory="$root/usr/share/gdb"' ;;
    esac
    cat >"$private/bin/$1.new" <<END
#!/bin/sh
# Runs what scripts/setup unpacked beside it, with the libraries and data that came with it.
root=\$(cd "\${0%/*}/../root" && pwd)
LD_LIBRARY_PATH=$libraries\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH
exec "$2"$arguments "\$@"
END
    chmod +x "$private/bin/$1.new"
    if starts "$private/bin/$1.new"; then
        mv "$private/bin/$1.new" "$private/bin/$1"
    else
        say "$private/root has a $1 that does not start:" "$("$private/bin/$1.new" --version 2>&1 | head -n 1)"
        rm "$private/bin/$1.new"
        return 1
    fi
}
