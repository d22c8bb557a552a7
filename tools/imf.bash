# SPDX-License-Identifier: Apache-2.0
# Completion of imf's command lines in bash 4.2 or newer. make install puts it where bash-completion looks by itself
# (share/bash-completion/completions/imf); by hand: . tools/imf.bash
# It knows no command, option or key: it asks the program that stands on the line (imf --help, imf help COMMAND, imf help recipe).
# shellcheck shell=bash

# _imf_run ARGUMENTS...: what the program says; nothing if it is not there.
_imf_run() { "${_imf_program/#\~\//$HOME/}" "$@" 2>/dev/null; }

_imf_commands() { _imf_run --help | sed -n 's/^  \([a-z]*\)  .*/\1/p'; }
_imf_options() { { _imf_run help "$1" && echo --help; } | grep -oE -- '(^|[^a-z-])--[a-z][a-z-]*' | grep -oE -- '--[a-z-]+' | sort -u; }

# _imf_choice TEXT: the words of "a|b|c" at the start of a text.
_imf_choice() { grep -oE '^[a-z0-9_]+(\|[a-z0-9_]+)+' <<<"$1" | tr '|' '\n'; }

# _imf_keys WORD: every key of the recipe with its "="; [] of a list gets the index that stands in WORD, else 0.
_imf_keys() {
    local index=0
    [[ $1 =~ \[([0-9]+) ]] && index=${BASH_REMATCH[1]}
    _imf_run help recipe | awk -v i="$index" '/^  [a-z]/ { gsub(/\[\]/, "[" i "]", $1); print $1 "=" }'
}

# _imf_values KEY: what a key may be, if that is a choice.
_imf_values() {
    local choice
    choice=$(_imf_run help recipe | awk -v key="$1" 'BEGIN { gsub(/\[[0-9]+\]/, "[]", key) }
        $1 == key { sub(/.*\(/, ""); sub(/\)$/, ""); print }')
    if [[ $choice == "true or false" ]]; then printf 'true\nfalse\n'; else _imf_choice "$choice"; fi
}

# _imf_argument COMMAND OPTION: the word behind an option in the command's help: DIR, FILE, a|b, or another name.
_imf_argument() { _imf_run help "$1" | grep -oE -- "$2 [A-Za-z0-9_|]+" | head -n 1 | cut -d' ' -f2; }

# _imf_offer WORDS CURRENT: those that begin so.
_imf_offer() { mapfile -t COMPREPLY < <(compgen -W "$1" -- "$2"); }

# _imf_files KIND CURRENT: directories (DIR), recipes and directories (RECIPE) or all files.
_imf_files() {
    local f files=()
    case $1 in
    DIR) mapfile -t COMPREPLY < <(compgen -d -- "$2") ;;
    *) mapfile -t COMPREPLY < <(compgen -f -- "$2") ;;
    esac
    if [[ $1 == RECIPE ]]; then
        for f in "${COMPREPLY[@]}"; do
            if [[ -d $f || $f == *.y?(a)ml ]]; then files+=("$f"); fi
        done
        COMPREPLY=("${files[@]}")
    fi
    compopt -o filenames 2>/dev/null
}

# _imf_set CURRENT: a key, or behind its "=" a value. Where "=" parts words, readline replaces what stands behind it alone.
_imf_set() {
    local key=${1%%=*} value=${1#*=}
    if [[ $1 != *=* ]]; then
        _imf_offer "$(_imf_keys "$1")" "$1"
        compopt -o nospace 2>/dev/null
        return
    fi
    _imf_offer "$(_imf_values "$key")" "$value"
    if [[ ${#COMPREPLY[@]} == 0 ]]; then _imf_files FILE "$value"; fi
    if [[ $COMP_WORDBREAKS != *=* ]]; then COMPREPLY=("${COMPREPLY[@]/#/$key=}"); fi
}

# _imf_place COMMAND CURRENT: an argument that is no option: a choice (imf judge), a run directory, a recipe or any file.
_imf_place() {
    local text words
    text=$(_imf_run help "$1")
    words=$(_imf_choice "$(sed -n "s/^imf $1 \([a-z]\)/\1/p" <<<"$text" | head -n 1)")
    if [[ $words ]]; then _imf_offer "$words" "$2"
    elif [[ $text == *--set* ]]; then _imf_files RECIPE "$2"
    elif [[ $text == *"$1 RUNDIR"* || $text == *"$1 MODEL"* ]]; then _imf_files DIR "$2"
    elif [[ $text ]]; then _imf_files FILE "$2"
    fi
}

# _imf_join: the words of the line, with a=b that COMP_WORDBREAKS has parted as one; up to the current one, in _imf_words.
_imf_join() {
    local i word glue=
    _imf_words=()
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ i -gt 1 && ($glue || $word == =*) ]]; then _imf_words[-1]+=$word; else _imf_words+=("$word"); fi
        if [[ $word == *= ]]; then glue=1; else glue=; fi
    done
}

_imf() {
    local _imf_program=$1 _imf_words argument
    COMPREPLY=()
    _imf_join
    local command=${_imf_words[1]-} current=${_imf_words[-1]} before=${_imf_words[-2]}
    if [[ ${#_imf_words[@]} -le 2 ]]; then
        _imf_offer "$(_imf_commands) help --help --version" "$current"
    elif [[ $command == help ]]; then
        _imf_offer "$(_imf_commands) recipe --man --markdown" "$current"
    elif [[ $before == --set ]]; then
        _imf_set "$current"
    elif [[ $current == -* ]]; then
        _imf_offer "$(_imf_options "$command")" "$current"
    else
        argument=
        if [[ $before == --* ]]; then argument=$(_imf_argument "$command" "$before"); fi
        case $argument in
        *'|'*) _imf_offer "$(_imf_choice "$argument")" "$current" ;;
        DIR | FILE) _imf_files "$argument" "$current" ;;
        [A-Z]*) ;;
        *) _imf_place "$command" "$current" ;;
        esac
    fi
}

complete -F _imf imf
