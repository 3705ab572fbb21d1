//! PTX text to tokens.

/// One token with its line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub kind: Kind,
    pub line: u32,
}

/// What a token is. Words keep their dots: `ld.global.v4.f32` is one word, so is `%tid.x`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Word(String),
    Text(String),
    Punct(char),
}

fn is_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'_' | b'$' | b'%' | b'.')
}

/// Splits the text; comments are dropped, lines counted from 1.
pub(crate) fn tokens(text: &str) -> Result<Vec<Token>, (u32, String)> {
    let bytes = text.as_bytes();
    let (mut at, mut line) = (0, 1);
    let mut out = Vec::with_capacity(bytes.len() / 4);
    while at < bytes.len() {
        let c = bytes[at];
        let next = bytes.get(at + 1).copied();
        match c {
            b'\n' => {
                line += 1;
                at += 1;
            }
            b' ' | b'\t' | b'\r' | 0 => at += 1,
            b'/' if next == Some(b'/') => {
                while at < bytes.len() && bytes[at] != b'\n' {
                    at += 1;
                }
            }
            b'/' if next == Some(b'*') => {
                let from = line;
                at += 2;
                loop {
                    match bytes.get(at) {
                        None => return Err((from, "comment is not closed".into())),
                        Some(b'*') if bytes.get(at + 1) == Some(&b'/') => break,
                        Some(b'\n') => line += 1,
                        Some(_) => {}
                    }
                    at += 1;
                }
                at += 2;
            }
            b'"' => {
                let start = at + 1;
                at = start;
                while at < bytes.len() && bytes[at] != b'"' {
                    if bytes[at] == b'\n' {
                        return Err((line, "string is not closed".into()));
                    }
                    at += 1;
                }
                let s = String::from_utf8_lossy(&bytes[start..at]).into_owned();
                out.push(Token { kind: Kind::Text(s), line });
                at += 1;
            }
            _ if is_word(c) => {
                let start = at;
                at += 1;
                while at < bytes.len() {
                    // `.reg.b32` is two directives, `add.s32` one instruction.
                    if c == b'.' && bytes[at] == b'.' {
                        break;
                    }
                    // A double colon belongs to the word (`L2::128B`), a single one ends a label.
                    if is_word(bytes[at]) {
                        at += 1;
                    } else if bytes[at] == b':' && bytes.get(at + 1) == Some(&b':') {
                        at += 2;
                    } else {
                        break;
                    }
                }
                let s = String::from_utf8_lossy(&bytes[start..at]).into_owned();
                out.push(Token { kind: Kind::Word(s), line });
            }
            b',' | b';' | b'{' | b'}' | b'[' | b']' | b'(' | b')' | b'<' | b'>' | b':' | b'@'
            | b'!' | b'+' | b'-' | b'=' | b'|' | b'~' => {
                out.push(Token { kind: Kind::Punct(c as char), line });
                at += 1;
            }
            _ => return Err((line, format!("unexpected character {:?}", c as char))),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_dots_and_double_colons() {
        let t = tokens("ld.global.L2::128B.f32 %f1, [%rd2+-4]; // x\nL1:").unwrap();
        let words: Vec<_> = t
            .iter()
            .filter_map(|t| match &t.kind {
                Kind::Word(w) => Some(w.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(words, ["ld.global.L2::128B.f32", "%f1", "%rd2", "4", "L1"]);
        assert_eq!(t.last().unwrap().line, 2);
    }

    #[test]
    fn directives_may_stand_without_a_space() {
        let t = tokens("{.reg.b32 a;").unwrap();
        let words: Vec<_> = t.iter().map(|t| t.kind.clone()).collect();
        assert_eq!(words[1..3], [Kind::Word(".reg".into()), Kind::Word(".b32".into())]);
    }

    #[test]
    fn an_open_comment_is_an_error_with_its_line() {
        assert_eq!(tokens("\n/* a\n").unwrap_err().0, 2);
    }
}
