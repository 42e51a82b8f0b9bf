# Changes one member of a top-level mapping of a YAML document, and no other line. $OP is `set`,
# `del` or `prune` (of a mapping that has become empty); $AT is `mapping/member`; $VALUE is what
# stands after the member's colon, with \036 between lines. $BACK is a file that gets the lines
# which take the change back. Exit status 3: it refuses, with the reason on standard error.
function refuse(why) {
    if (!refused) print why > "/dev/stderr"
    refused = 1
    exit 3
}
function back(op, at, old) {
    if (BACK != "") printf "%s\t%s\t%s\n", op, at, old > BACK
}
function indent(s) {
    match(s, /^ */)
    return RLENGTH
}
# Whether a line begins the member `name` at this depth.
function begins(s, depth, name) {
    return indent(s) == depth && (substr(s, depth + 1) ~ ("^[\"']?" name "[\"']?[ ]*:([ \t]|$)"))
}
function is_blank(s) {
    return s ~ /^[ \t]*(#.*)?$/
}
BEGIN {
    OP = ENVIRON["OP"]
    VALUE = ENVIRON["VALUE"]
    BACK = ENVIRON["BACK"]
    AT = ENVIRON["AT"]
    split(AT, name, "/")
}
NR == 1 && substr($0, 1, 3) == "\357\273\277" { refuse("a byte order mark at its beginning") }
{
    if (sub(/\r$/, "")) ending = "\r"
    line[NR] = $0
    if ($0 ~ /^ *\t/ && !is_blank($0)) refuse("a tab in line " NR)
    if ($0 ~ /^(---|\.\.\.)/ && NR > 1 || $0 ~ /^[{[]/) refuse("line " NR)
    if (begins($0, 0, name[1])) {
        if (top) refuse("the name " name[1] " twice")
        top = NR
    }
}
END {
    if (refused) exit 3
    child = "  "
    if (top) read_mapping()
    if (OP == "set") set()
    else if (OP == "del") del()
    else if (top && !members) {
        back("set", name[1] "/", "")
        drop(top, top)
    }
    for (i = 1; i <= NR; i++) {
        if (!(i in dropped)) print line[i] ending
        if (i in added) lines(added[i])
    }
    if (0 in added) lines(added[0])
}
# Finds where the mapping ends (`bottom`), how deep its members are (`child`), and the member.
function read_mapping(    i, rest, depth) {
    rest = line[top]
    sub(/^[^:]*:[ \t]*/, "", rest)
    sub(/[ \t]*#.*$/, "", rest)
    is_empty = rest == "{}" || rest == "null" || rest == "~" || rest == "\"\"" || rest == "''"
    if (rest != "" && !is_empty) refuse(name[1] " in line " top " is no mapping of several lines")
    bottom = top
    for (i = top + 1; i <= NR; i++) {
        if (is_blank(line[i])) continue
        depth = indent(line[i])
        if (!depth) {
            if (substr(line[i], 1, 1) == "-" && !members) refuse(name[1] " is a list")
            break
        }
        if (!members) child = substr(line[i], 1, depth)
        members++
        if (depth < length(child)) refuse("the indentation of line " i)
        if (substr(line[i], depth + 1, 2) == "- " && depth == length(child)) {
            refuse(name[1] " is a list")
        }
        if (depth == length(child)) in_member = 0
        if (begins(line[i], length(child), name[2])) {
            if (found) refuse("the name " name[2] " twice")
            found = i
            in_member = 1
        }
        bottom = i
        if (in_member) last = i
    }
}
function drop(from, to,    i) {
    for (i = from; i <= to; i++) dropped[i] = 1
}
function lines(text,    part, count, i) {
    count = split(text, part, "\036")
    for (i = 1; i <= count; i++) print part[i] ending
}
function member(    part, count, i, out) {
    count = split(VALUE, part, "\036")
    out = child name[2] ":" (part[1] == "" ? "" : " ") part[1]
    for (i = 2; i <= count; i++) out = out "\036" child part[i]
    return out
}
# What the member is now, in the form of $VALUE.
function old(    i, out, part) {
    out = line[found]
    sub(/^[^:]*:[ ]?/, "", out)
    for (i = found + 1; i <= last; i++) {
        part = line[i]
        if (substr(part, 1, length(child)) == child) part = substr(part, length(child) + 1)
        out = out "\036" part
    }
    return out
}
function set() {
    if (name[2] == "") {
        if (!top) added[NR] = name[1] ":"
        return
    }
    if (found) {
        if (old() == VALUE) return
        back("set", AT, old())
        drop(found, last)
        added[last] = member()
        return
    }
    back("del", AT, "")
    if (!top) {
        back("prune", name[1] "/", "")
        added[NR] = name[1] ":\036" member()
        return
    }
    if (is_empty) line[top] = name[1] ":"
    added[bottom] = member()
}
function del() {
    if (!found) return
    back("set", AT, old())
    drop(found, last)
}
