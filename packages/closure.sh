#!/bin/sh
# closure.sh DEST FILE...: copies each FILE to the same path below DEST, with all that it needs to run: the targets of symbolic links,
# and of an ELF program the shared libraries and the loader. Directories are always made real, never the links of a merged /usr, so that
# images made so can be unpacked over each other. What a program loads by name while it runs (plug-ins) has to be listed as a FILE.
set -eu

fail() {
	echo "closure.sh: $*" >&2
	exit 1
}

add() {
	[ -e "$1" ] || fail "$1: no such file (is its Debian package installed in this stage?)"
	[ -f "$1" ] || fail "$1: not a regular file or a link to one"
	if [ -e "$dest$1" ] || [ -L "$dest$1" ]; then
		return 0
	fi
	mkdir -p "$dest$(dirname "$1")"
	cp -P -p "$1" "$dest$1"
	if [ -L "$1" ]; then
		target=$(readlink "$1")
		case $target in
		/*) add "$target" ;;
		*) add "$(dirname "$1")/$target" ;;
		esac
		return 0
	fi
	# ldd fails on files that are not dynamic ELF programs: they need nothing more.
	libraries=$(ldd "$1" 2>/dev/null) || return 0
	case $libraries in
	*'not found'*) fail "$1: a shared library is missing: $libraries" ;;
	esac
	for library in $(echo "$libraries" | grep -o '/[^ ]*'); do
		add "$library"
	done
}

[ $# -ge 2 ] || fail "usage: closure.sh DEST FILE..."
dest=${1%/}
shift
for file; do
	case $file in
	/*) add "$file" ;;
	*) fail "$file: not an absolute path" ;;
	esac
done
