# Changes one place of a JSON document, and no other octet. $OP is `set`, `del`, `prune` (of an
# object that has become empty), `add` or `drop` (of one element of an array), or `raw`: set, with
# the lines as they are. $AT names the place by its members, with slashes between; $VALUE is JSON,
# with \036 for a new line. $BACK is a file that gets the lines which take the change back. Exit status 3: it refuses, with the reason on standard error.
function refuse(why) {
    if (!refused) print why > "/dev/stderr"
    refused = 1
    exit 3
}
function take(kind, from, length_) {
    n++
    W[n] = space
    T[n] = substr(line, from, length_)
    K[n] = kind
    space = ""
}
function read_line(    pos, end, first, part) {
    pos = 1
    end = length(line)
    while (pos <= end) {
        part = substr(line, pos, 2048)
        first = substr(part, 1, 1)
        if (first == " " || first == "\t" || first == "\r") {
            match(part, /^[ \t\r]+/)
            space = space substr(part, 1, RLENGTH)
            pos += RLENGTH
            continue
        }
        if (index("{}[]:,", first)) {
            take(first, pos, 1)
            pos++
            continue
        }
        if (first == "\"") {
            if (!match(part, /^"([^"\\]|\\.)*"/)) part = substr(line, pos)
            if (!match(part, /^"([^"\\]|\\.)*"/)) refuse("a text that does not end, in line " NR)
            take("s", pos, RLENGTH)
        } else if (match(part, /^(true|false|null|-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?)/)) {
            take("v", pos, RLENGTH)
        } else if (first == "/" || first == "#") {
            refuse("a comment in line " NR)
        } else {
            refuse("something that is not JSON in line " NR)
        }
        pos += RLENGTH
    }
}
# The token after the value that begins at `i`. Checks the grammar.
function value(i,    c) {
    c = K[i]
    if (c == "s" || c == "v") return i + 1
    if (c != "{" && c != "[") refuse("a value is missing")
    return c == "{" ? members(i) : elements(i)
}
function members(o,    i) {
    i = o + 1
    if (K[i] == "}") {
        close_[o] = i
        return i + 1
    }
    while (1) {
        if (K[i] == "}") refuse("a comma before a closing brace")
        if (K[i] != "s" || K[i + 1] != ":") refuse("a member without a name")
        i = value(i + 2)
        if (K[i] == "}") break
        if (K[i] != ",") refuse("a comma is missing")
        i++
    }
    close_[o] = i
    return i + 1
}
function elements(o,    i) {
    i = o + 1
    if (K[i] == "]") {
        close_[o] = i
        return i + 1
    }
    while (1) {
        if (K[i] == "]") refuse("a comma before a closing bracket")
        i = value(i)
        if (K[i] == "]") break
        if (K[i] != ",") refuse("a comma is missing")
        i++
    }
    close_[o] = i
    return i + 1
}
function after(i) {
    return (i in close_) ? close_[i] + 1 : i + 1
}
# The token that names member `name` of the object at `o`; 0: there is none.
function find(o, name,    i, found) {
    for (i = o + 1; K[i] == "s"; i++) {
        if (index(T[i], "\\u")) refuse("a name with \\u in it")
        if (T[i] == "\"" name "\"") {
            if (found) refuse("the name " name " twice")
            found = i
        }
        i = after(i + 2)
        if (K[i] != ",") break
    }
    return found
}
function text(from, to,    i, out) {
    for (i = from; i <= to; i++) out = out (i > from ? W[i] : "") T[i]
    return flat(out)
}
function flat(out,    i, parts, count) {
    count = split(out, parts, "\n")
    out = parts[1]
    for (i = 2; i <= count; i++) out = out "\036" parts[i]
    return out
}
function back(op, at, old) {
    if (BACK != "") printf "%s\t%s\t%s\n", op, at, old > BACK
}
function only_space(s) {
    return s ~ /^[ \t\r\n]*$/
}
# Puts a member, which is not there yet, at the end of the object at `o`.
function put(o, name, new,    lead, last) {
    if (K[o + 1] == "}") {
        lead = o == 1 ? "\n" : W[o - 2]
        if (o > 1 && !index(lead, "\n")) lead = ""
        W[o + 1] = lead
        if (lead != "") lead = lead "  "
        T[o] = T[o] lead "\"" name "\": " indented(new, lead)
    } else {
        lead = W[o + 1]
        last = close_[o] - 1
        T[last] = T[last] "," lead "\"" name "\": " indented(new, lead)
    }
}
# The lines of a value with `between` in place of each new line, and of the space after it too.
function joined(new, between, trim,    parts, count, i, out) {
    count = split(new, parts, "\036")
    out = parts[1]
    for (i = 2; i <= count; i++) {
        if (trim) sub(/^ +/, "", parts[i])
        out = out between parts[i]
    }
    return out
}
# A value below its name: its lines are moved as far to the right as the name.
function indented(new, lead,    start) {
    if (OP == "raw") return joined(new, "\n", 0)
    if (!index(lead, "\n")) return joined(new, " ", 1)
    start = lead
    sub(/^.*\n/, "", start)
    return joined(new, (index(lead, "\r\n") ? "\r\n" : "\n") start, 0)
}
function set(new,    o, i, m, old) {
    o = 1
    for (i = 1; i <= depth; i++) {
        m = find(o, name[i])
        if (!m) break
        if (i == depth) {
            old = text(m + 2, after(m + 2) - 1)
            if (old == flat(indented(new, W[m]))) return
            back("raw", AT, old)
            replace(m + 2, new, W[m])
            return
        }
        o = m + 2
        if (K[o] != "{") refuse("the member " name[i] " is no object")
    }
    back("del", AT, "")
    for (m = depth - 1; m >= i; m--) back("prune", path(m), "")
    for (m = depth; m > i; m--) {
        new = "{\036  \"" name[m] "\": " joined(new, "\036  ", 0) "\036}"
    }
    put(o, name[i], new)
}
function path(count,    i, out) {
    out = name[1]
    for (i = 2; i <= count; i++) out = out "/" name[i]
    return out
}
function replace(at, new, lead,    i, end) {
    end = after(at) - 1
    T[at] = indented(new, lead)
    for (i = at + 1; i <= end; i++) T[i] = W[i] = ""
}
# The token that names the member at $AT; 0: there is none. Sets `owner`, its object.
function locate(    i, m) {
    owner = 1
    for (i = 1; i <= depth; i++) {
        if (K[owner] != "{") return 0
        m = find(owner, name[i])
        if (!m) return 0
        if (i < depth) owner = m + 2
    }
    return m
}
function del(only_empty,    m, i, from, to) {
    m = locate()
    if (!m) return
    if (only_empty && !(K[m + 2] == "{" && K[m + 3] == "}")) return
    back("raw", AT, text(m + 2, after(m + 2) - 1))
    from = m
    to = after(m + 2) - 1
    if (K[from - 1] == ",") {
        from--
    } else if (K[to + 1] == ",") {
        to++
        W[to + 1] = W[m]
    } else {
        W[to + 1] = ""
    }
    for (i = from; i <= to; i++) T[i] = W[i] = ""
}
function element(want, is_wanted,    m, i, a, next_, there) {
    m = locate()
    if (!m) {
        if (is_wanted) set("[" want "]")
        return
    }
    a = m + 2
    if (K[a] != "[") refuse("the member " name[depth] " is no array")
    for (i = a + 1; K[i] != "]"; i = K[i] == "," ? i + 1 : i) {
        if (T[i] == want) there = i
        i = after(i)
    }
    if ((there > 0) == is_wanted) return
    back("raw", AT, text(a, close_[a]))
    if (is_wanted) {
        i = close_[a] - 1
        T[i] = T[i] (i == a ? "" : "," W[a + 1]) want
        return
    }
    for (i = a + 1; i < close_[a]; i = next_) {
        next_ = after(i)
        if (K[next_] == ",") next_++
        if (T[i] != want) continue
        T[i] = ""
        if (K[i + 1] == ",") {
            T[i + 1] = ""
            W[i + 2] = W[i]
            W[i] = W[i + 1] = ""
        } else {
            if (T[i - 1] == ",") T[i - 1] = W[i - 1] = ""
            W[i] = ""
        }
    }
}
BEGIN {
    OP = ENVIRON["OP"]
    AT = ENVIRON["AT"]
    VALUE = ENVIRON["VALUE"]
    BACK = ENVIRON["BACK"]
    depth = split(AT, name, "/")
}
NR == 1 && substr($0, 1, 3) == "\357\273\277" { refuse("a byte order mark at its beginning") }
{
    if (NR > 1) space = space "\n"
    line = $0
    read_line()
}
END {
    if (refused) exit 3
    if (NR) space = space "\n"
    if (!n) {
        if (!only_space(space)) refuse("no JSON")
        if (OP == "del" || OP == "prune" || OP == "drop") {
            printf "%s", space
            exit 0
        }
        T[1] = K[1] = "{"
        T[2] = K[2] = "}"
        n = 2
        space = "\n"
    }
    if (K[1] != "{") refuse("no object at its top")
    if (value(1) != n + 1) refuse("something after its end")
    if (OP == "set" || OP == "raw") set(VALUE)
    else if (OP == "del") del(0)
    else if (OP == "prune") del(1)
    else if (OP == "add") element(VALUE, 1)
    else if (OP == "drop") element(VALUE, 0)
    for (i = 1; i <= n; i++) printf "%s%s", W[i], T[i]
    printf "%s", space
}
