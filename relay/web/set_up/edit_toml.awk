# Changes one setting of a TOML document, and no other line. $OP is `set` or `del`; $AT is the name
# of a top-level key, or a table with all below it, as `[a.b]`; $VALUE is the key's value, or the
# lines of the tables, with \036 between them. $BACK is a file that gets the line which takes the
# change back. Exit status 3: it refuses, with the reason on standard error.
function refuse(why) {
    if (!refused) print why > "/dev/stderr"
    refused = 1
    exit 3
}
# Reads a line from where the last one ended: within a text of several lines ("\"" or "'"), within
# `open` brackets, or neither.
function scan(s,    i, c, end) {
    end = length(s)
    for (i = 1; i <= end; i++) {
        c = substr(s, i, 1)
        if (quote != "") {
            if (c == "\\" && quote == "\"") i++
            else if (substr(s, i, 3) == quote quote quote) {
                i += 2
                quote = ""
            }
        } else if (c == "#") {
            return
        } else if (c == "\"" || c == "'") {
            if (substr(s, i, 3) == c c c) {
                quote = c
                i += 2
            } else {
                i = text_end(s, i, c, end)
            }
        } else if (c == "[" || c == "{") {
            open++
        } else if (c == "]" || c == "}") {
            open--
        }
    }
}
function text_end(s, i, mark, end,    c) {
    for (i++; i <= end; i++) {
        c = substr(s, i, 1)
        if (c == mark) return i
        if (c == "\\" && mark == "\"") i++
    }
    refuse("a text that does not end in line " NR)
    return i
}
# A name without quotes and spaces; a name with anything else in it stays as it is.
function plain(s) {
    gsub(/["' \t]/, "", s)
    return s
}
function below(table, top) {
    return table == top || substr(table, 1, length(top) + 1) == top "."
}
BEGIN {
    OP = ENVIRON["OP"]
    AT = ENVIRON["AT"]
    VALUE = ENVIRON["VALUE"]
    BACK = ENVIRON["BACK"]
    if (substr(AT, 1, 1) == "[") wanted = substr(AT, 2, length(AT) - 2)
    parent = wanted
    sub(/\.[^.]*$/, "", parent)
    leaf = substr(wanted, length(parent) + 2)
}
NR == 1 && substr($0, 1, 3) == "\357\273\277" { refuse("a byte order mark at its beginning") }
{
    line[NR] = $0
    bare = $0
    sub(/\r$/, "", bare)
    if (bare != $0) ending = "\r"
    starts = quote == "" && open == 0
    if (starts && bare ~ /^[ \t]*\[/) {
        table = bare
        sub(/#.*$/, "", table)
        table = plain(table)
        is_list = table ~ /^\[\[/
        gsub(/[][]/, "", table)
        if (!first_table) first_table = NR
        header[NR] = table
        if (wanted != "" && is_list && below(table, wanted)) refuse("[[" table "]]")
    } else if (starts && bare ~ /^[ \t]*[^# \t]/) {
        key = bare
        sub(/[=].*$/, "", key)
        key = plain(key)
        if (!first_table) {
            last_key = NR
            if (AT == key) {
                if (found) refuse("the key " AT " twice")
                found = NR
            }
            if (wanted != "" && below(key, parent)) refuse("the key " key " in line " NR)
            if (wanted == "" && below(key, AT) && key != AT) refuse("the key " key)
        } else if (wanted != "" && table == parent && below(key, leaf)) {
            refuse("the key " key " in line " NR)
        }
    }
    scan(bare)
    if (!first_table && (quote != "" || open)) last_key = NR + 1
    if (found && !ends && quote == "" && !open) ends = NR
}
END {
    if (refused) exit 3
    if (quote != "" || open) refuse("something that does not end")
    if (wanted != "") tables()
    else keys()
}
function keys(    i, old, new) {
    new = AT " = " VALUE ending
    if (found) {
        if (ends != found) refuse("the key " AT " on several lines")
        old = line[found]
        sub(/\r$/, "", old)
        sub(/^[^=]*=[ \t]*/, "", old)
    }
    if (found && OP == "set" && old != VALUE || found && OP == "del") back("set", AT, old)
    if (!found && OP == "set") back("del", AT, "")
    if (!last_key && OP == "set" && !found) print new
    for (i = 1; i <= NR; i++) {
        if (i != found) print line[i]
        else if (OP == "set") print (old == VALUE ? line[i] : new)
        if (i == last_key && OP == "set" && !found) print new
    }
}
function tables(    i, inside, kept, old, new, part, count, blank) {
    for (i = 1; i <= NR; i++) {
        if (i in header) inside = below(header[i], wanted)
        cut[i] = inside
    }
    # Blank lines and comments before the next table are of that table.
    for (i = NR; i >= 1; i--) {
        if (!cut[i]) kept = 1
        else if (kept && line[i] ~ /^[ \t\r]*(#.*)?$/) cut[i] = 0
        else kept = 0
        if (!cut[i] && (i + 1 <= NR) && cut[i + 1]) kept = 0
    }
    for (i = 1; i <= NR; i++) {
        if (!cut[i]) continue
        part = line[i]
        sub(/\r$/, "", part)
        old = old (count++ ? "\036" : "") part
    }
    while (old ~ /\036[ \t]*$/) sub(/\036[ \t]*$/, "", old)
    if (OP == "set" && old == VALUE || OP == "del" && old == "") {
        for (i = 1; i <= NR; i++) print line[i]
        return
    }
    if (old != "") back("set", AT, old)
    else back("del", AT, "")
    blank = 1
    for (i = 1; i <= NR; i++) {
        if (cut[i]) continue
        if (held != "") printf "%s", held
        held = ""
        if (line[i] ~ /^[ \t\r]*$/) held = line[i] "\n"
        else print line[i]
        blank = 0
    }
    if (OP == "del") exit 0
    if (!blank) print ending
    count = split(VALUE, new, "\036")
    for (i = 1; i <= count; i++) print new[i] ending
}
function back(op, at, old) {
    if (BACK != "") printf "%s\t%s\t%s\n", op, at, old > BACK
}
