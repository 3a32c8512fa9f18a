use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{
    alphabet::{Class, MAX_GAP},
    *,
};

mod encodings;

fn secrets(values: &[&str]) -> Vec<Secret> {
    values.iter().map(|value| Secret::new(*value)).collect()
}

fn feed(values: &[&str], pieces: &[&[u8]]) -> (Vec<u8>, Masker) {
    let patterns = Patterns::new(&secrets(values)).unwrap();
    let (mut out, mut masker) = (Vec::new(), Masker::default());
    for piece in pieces {
        masker.feed(patterns.as_ref(), piece, &mut out);
    }
    (out, masker)
}

fn masked(values: &[&str], pieces: &[&[u8]]) -> String {
    let (mut out, mut masker) = feed(values, pieces);
    masker.flush(&mut out);
    String::from_utf8(out).unwrap()
}

/// How an alphabet reads `text`, which begins with a symbol, has no gap that is too long or too early, and is no
/// longer than the longest form.
fn symbols(alphabet: Alphabet, text: &[u8], longest: usize) -> Option<Vec<u8>> {
    let (mut symbols, mut gap, mut wrapped) = (Vec::new(), 0, false);
    for byte in text {
        match alphabet.class(*byte) {
            Class::Symbol(_) if symbols.len() == longest => return None,
            Class::Symbol(symbol) => {
                symbols.push(symbol);
                (gap, wrapped) = (0, false);
            }
            Class::Gap(least) => {
                gap += 1;
                wrapped |= matches!(byte, b'\r' | b'\n');
                let least = if gap > 1 { 4 } else { usize::from(least) };
                if symbols.len() < least.max(1) || gap > MAX_GAP {
                    return None;
                }
            }
            Class::Indent if wrapped && gap < MAX_GAP => gap += 1,
            Class::Indent | Class::Other => return None,
        }
    }
    Some(symbols)
}

fn sets(forms: &Forms) -> [(Alphabet, &BTreeSet<Vec<u8>>); 3] {
    [
        (Alphabet::Plain, &forms.plain),
        (Alphabet::Base64, &forms.base64),
        (Alphabet::Hex, &forms.hex),
    ]
}

fn longest(set: &BTreeSet<Vec<u8>>) -> usize {
    set.iter().map(Vec::len).max().unwrap_or_default()
}

fn is_symbol(alphabet: Alphabet, byte: u8) -> bool {
    matches!(alphabet.class(byte), Class::Symbol(_))
}

/// The definition, by brute force: every byte of every occurrence is covered.
fn model(forms: &Forms, text: &[u8]) -> Vec<u8> {
    let mut covered = vec![false; text.len()];
    for (alphabet, set) in sets(forms) {
        let longest = longest(set);
        for start in (0..text.len()).filter(|start| is_symbol(alphabet, text[*start])) {
            for end in start + 1..=text.len() {
                let Some(read) = symbols(alphabet, &text[start..end], longest) else {
                    break;
                };
                if is_symbol(alphabet, text[end - 1]) && set.contains(&read) {
                    covered[start..end].fill(true);
                }
            }
        }
    }
    let mut out = Vec::new();
    for i in 0..text.len() {
        if !covered[i] {
            out.push(text[i]);
        } else if i == 0 || !covered[i - 1] {
            out.extend_from_slice(forms::MASK);
        }
    }
    out
}

/// How many bytes at the end of `text` begin a form and do not end it, by brute force.
fn begun(forms: &Forms, text: &[u8]) -> usize {
    let begins = |start: &usize| {
        sets(forms).into_iter().any(|(alphabet, set)| {
            symbols(alphabet, &text[*start..], longest(set)).is_some_and(|read| {
                // The set is in order: what goes on with `read` stands right behind it.
                let mut behind = set.range(read.clone()..).filter(|form| **form != read);
                is_symbol(alphabet, text[*start]) && behind.next().is_some_and(|form| form.starts_with(&read))
            })
        })
    };
    text.len() - (0..text.len()).find(begins).unwrap_or(text.len())
}

/// What is shown of `text` cut into pieces of these sizes; at every cut exactly what has begun is held.
fn shown(forms: &Forms, patterns: &Patterns, text: &[u8], sizes: &[usize]) -> Result<Vec<u8>, TestCaseError> {
    let (mut out, mut masker) = (Vec::new(), Masker::default());
    let (mut sizes, mut seen) = (sizes.iter().cycle(), 0);
    while seen < text.len() {
        let size = sizes
            .next()
            .map_or(text.len(), |size| *size)
            .clamp(1, text.len() - seen);
        masker.feed(Some(patterns), &text[seen..seen + size], &mut out);
        seen += size;
        prop_assert_eq!(masker.held().len(), begun(forms, &text[..seen]));
    }
    masker.flush(&mut out);
    Ok(out)
}

#[test]
fn whole_encoded_and_split_secrets_are_masked() {
    let all = ["hunter2!", "line one\nline two"];
    assert_eq!(masked(&all, &[b"a hunter2! b"]), "a *** b");
    assert_eq!(masked(&all, &[b"a hun", b"ter", b"2! b"]), "a *** b");
    assert_eq!(masked(&all, &[b"aHVudGVyMiE= hunter2%21"]), "*** ***");
    assert_eq!(masked(&all, &[b"x line two y line one z"]), "x *** y *** z");
    assert_eq!(masked(&all, &[b"line one\r\nline two\n"]), "***\r\n***\n");
    assert_eq!(masked(&all, &[b"hunter2!hunter2!"]), "***");
}

#[test]
fn only_the_beginning_of_a_secret_is_held_back() {
    for (text, held) in [
        ("Password: ", 0),
        ("a h", 1),
        ("hunter2", 7),
        ("hunter3", 0),
        ("hunhunt", 4),
        ("huntehu", 2),
    ] {
        let (out, masker) = feed(&["hunter2!"], &[text.as_bytes()]);
        assert_eq!((masker.held().len(), out.len()), (held, text.len() - held), "{text}");
    }
    // A whole secret is certain; what may still make it longer is held.
    let (out, masker) = feed(&["abcd", "abcdefgh"], &[b"abcd"]);
    assert_eq!((out.as_slice(), masker.held().len()), (&b""[..], 4));
    let (out, masker) = feed(&["abcdefg!"], &[b"abcdefg!"]);
    assert_eq!((out.as_slice(), masker.held().len()), (&b"***"[..], 0));
}

#[test]
fn a_lines_end_waits_only_for_what_looks_like_a_wrapped_secret() {
    // Base64 of it begins with aHVudGVy, hexadecimal with 68756e74.
    let values = ["hunter2-hunter2"];
    for (text, held) in [
        ("ends in a\n", 0),
        ("ends in aHV\n", 0),
        ("ends in aHVu\n", 5),
        ("ends in aHVu\r\n  ", 8),
        ("ends in aHVu\n!", 0),
        ("ends in 68\n", 0),
        ("ends in 68:", 3),
        ("ends in 68  ", 0),
        ("ends in 68:75\n", 6),
        ("ends in 68: ", 0),
        ("ends in 68:7:", 5),
        ("ends in 68:7: ", 0),
        ("ends in 68:7: : : : : : : : : : : : : ", 0),
    ] {
        let (_, masker) = feed(&values, &[text.as_bytes()]);
        assert_eq!(masker.held().len(), held, "{text:?}");
    }
}

#[test]
fn overlapping_secrets_leave_no_rest() {
    assert_eq!(masked(&["abcdef", "efghij"], &[b"xabcdefghijx"]), "x***x");
    assert_eq!(masked(&["abcd", "xabcdy"], &[b"xabcdx xabcdy"]), "x***x ***");
    assert_eq!(masked(&["aaaa"], &[b"aaaaaaa b aaa"]), "*** b aaa");
}

#[test]
fn new_masks_work_from_their_place_on() {
    let (mut out, mut masker) = (Vec::new(), Masker::default());
    let old = Patterns::new(&secrets(&["first-secret"])).unwrap();
    masker.feed(old.as_ref(), b"second-secret first-s", &mut out);
    let new = Patterns::new(&secrets(&["first-secret", "second-secret", "t-secret x"])).unwrap();
    masker.feed(new.as_ref(), b"ecret x second-sec", &mut out);
    masker.feed(new.as_ref(), b"ret.", &mut out);
    assert_eq!(String::from_utf8_lossy(&out), "second-secret *** ***.");
}

#[test]
fn a_hostile_text_takes_linear_time() {
    let long = "a".repeat(20_000);
    let text = "a".repeat(19_999) + "b";
    let patterns = Patterns::new(&secrets(&[&long])).unwrap();
    let (mut out, mut masker) = (Vec::new(), Masker::default());
    for _ in 0..50 {
        masker.feed(patterns.as_ref(), text.as_bytes(), &mut out);
    }
    masker.flush(&mut out);
    assert_eq!(out.len(), 50 * text.len());
}

#[test]
fn too_many_masks_are_refused_in_words() {
    let many: Vec<Secret> = (0..=forms::MAX_MASKS)
        .map(|i| Secret::new(format!("secret-{i}")))
        .collect();
    let error = Patterns::new(&many).err().unwrap().to_string();
    assert!(error.contains("1001 secrets"), "{error}");
    assert!(Patterns::new(&secrets(&[&"long ".repeat(1 << 19)])).is_err());
    // Also when their forms are all the same but for the end, which a search would share.
    let same: Vec<Secret> = (0..5)
        .map(|i| Secret::new(format!("{}{i}", "s".repeat(60 << 10))))
        .collect();
    assert!(Patterns::new(&same).is_err());
    assert!(Patterns::new(&[]).unwrap().is_none());
}

/// A small alphabet, so that secrets overlap, repeat and nearly occur all the time.
fn word() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof![Just('a'), Just('b'), Just('\n')], 4..12)
        .prop_map(|c| c.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_cutting_gives_what_masking_the_whole_gives(
        values in proptest::collection::vec(word(), 1..4),
        noise in proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("\n"), Just("ab"), Just("c")], 0..60),
        planted in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..5),
        sizes in proptest::collection::vec(1usize..20, 1..8),
    ) {
        let mut text: Vec<u8> = noise.concat().into_bytes();
        for (value, place) in planted {
            let at = place.index(text.len() + 1);
            text.splice(at..at, value.get(&values).bytes());
        }
        let masks: Vec<Secret> = values.iter().map(Secret::new).collect();
        let (forms, patterns) = (Forms::of(&masks), Patterns::new(&masks).unwrap().unwrap());
        let out = shown(&forms, &patterns, &text, &sizes)?;
        let expected = model(&forms, &text);
        prop_assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&expected));
    }

    #[test]
    fn long_texts_agree_with_the_model(
        values in proptest::collection::vec("[a-f]{4,9}", 1..6),
        text in "[a-g ]{0,400}", cut in any::<prop::sample::Index>(),
    ) {
        let masks: Vec<Secret> = values.iter().map(Secret::new).collect();
        let forms = Forms::of(&masks);
        let cut = cut.index(text.len() + 1);
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let shown = masked(&values, &[&text.as_bytes()[..cut], &text.as_bytes()[cut..]]);
        prop_assert_eq!(shown.into_bytes(), model(&forms, text.as_bytes()));
    }

    /// Pieces of encodings between what may part them, and what may not.
    #[test]
    fn wrapped_and_separated_texts_agree_with_the_model(
        values in proptest::collection::vec("[a-c?>]{6,14}", 1..3),
        parts in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1usize..9, 0usize..14), 0..8),
        sizes in proptest::collection::vec(1usize..20, 1..8),
    ) {
        let masks: Vec<Secret> = values.iter().map(Secret::new).collect();
        let (forms, patterns) = (Forms::of(&masks), Patterns::new(&masks).unwrap().unwrap());
        let encoded: Vec<Vec<u8>> = forms.base64.iter().chain(&forms.hex).cloned().collect();
        let mut text = Vec::new();
        for (form, place, width, between) in parts {
            // The form itself, from any place on, wrapped anywhere.
            let form = form.get(&encoded);
            let form = &form[place.index(form.len()) / 3..];
            let between = ["\n", "\r\n", ":", " ", "\n  ", "-", "", "  ", "\n\n\n", "x", "=", "\n\n                              ", "\t", "."][between];
            let between = between.as_bytes();
            for piece in form.chunks(width) {
                text.extend_from_slice(piece);
                text.extend_from_slice(between);
            }
        }
        let out = shown(&forms, &patterns, &text, &sizes)?;
        let expected = model(&forms, &text);
        prop_assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&expected));
    }
}
