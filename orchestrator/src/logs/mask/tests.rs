use proptest::prelude::*;

use super::*;

fn secrets(values: &[&str]) -> Vec<Secret> {
    values.iter().map(|value| Secret::new(*value)).collect()
}

fn feed(values: &[&str], pieces: &[&[u8]]) -> (Vec<u8>, Hold) {
    let patterns = Patterns::new(&secrets(values)).unwrap();
    let (mut out, mut hold) = (Vec::new(), Hold::default());
    for piece in pieces {
        hold.feed(patterns.as_ref(), piece, &mut out);
    }
    (out, hold)
}

fn masked(values: &[&str], pieces: &[&[u8]]) -> String {
    let (mut out, mut hold) = feed(values, pieces);
    hold.flush(&mut out);
    String::from_utf8(out).unwrap()
}

/// The definition, by brute force: every byte of every occurrence is covered.
fn model(forms: &BTreeSet<Vec<u8>>, text: &[u8]) -> Vec<u8> {
    let mut covered = vec![false; text.len()];
    for form in forms {
        for at in 0..=text.len().saturating_sub(form.len()) {
            if text[at..].starts_with(form) {
                covered[at..at + form.len()].fill(true);
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
        let (out, hold) = feed(&["hunter2!"], &[text.as_bytes()]);
        assert_eq!((hold.len(), out.len()), (held, text.len() - held), "{text}");
    }
    // A whole secret is certain; what may still make it longer is held.
    let (out, hold) = feed(&["abcd", "abcdefgh"], &[b"abcd"]);
    assert_eq!((out.as_slice(), hold.len()), (&b""[..], 4));
    let (out, hold) = feed(&["abcdefg!"], &[b"abcdefg!"]);
    assert_eq!((out.as_slice(), hold.len()), (&b"***"[..], 0));
}

#[test]
fn overlapping_secrets_leave_no_rest() {
    assert_eq!(masked(&["abcdef", "efghij"], &[b"xabcdefghijx"]), "x***x");
    assert_eq!(masked(&["abcd", "xabcdy"], &[b"xabcdx xabcdy"]), "x***x ***");
    assert_eq!(masked(&["aaaa"], &[b"aaaaaaa b aaa"]), "*** b aaa");
}

#[test]
fn new_masks_work_from_their_place_on() {
    let (mut out, mut hold) = (Vec::new(), Hold::default());
    let old = Patterns::new(&secrets(&["first-secret"])).unwrap();
    hold.feed(old.as_ref(), b"second-secret first-s", &mut out);
    let new = Patterns::new(&secrets(&["first-secret", "second-secret", "t-secret x"])).unwrap();
    hold.feed(new.as_ref(), b"ecret x second-sec", &mut out);
    hold.feed(new.as_ref(), b"ret.", &mut out);
    assert_eq!(String::from_utf8_lossy(&out), "second-secret *** ***.");
}

#[test]
fn a_hostile_text_takes_linear_time() {
    let long = "a".repeat(20_000);
    let text = "a".repeat(19_999) + "b";
    let patterns = Patterns::new(&secrets(&[&long])).unwrap();
    let (mut out, mut hold) = (Vec::new(), Hold::default());
    for _ in 0..50 {
        hold.feed(patterns.as_ref(), text.as_bytes(), &mut out);
    }
    hold.flush(&mut out);
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
        let mut forms = BTreeSet::new();
        masks.iter().for_each(|mask| { forms::add(mask, &mut forms); });
        let patterns = Patterns::new(&masks).unwrap();

        let (mut out, mut hold) = (Vec::new(), Hold::default());
        let (mut rest, mut at, mut seen) = (&text[..], 0, 0);
        while !rest.is_empty() {
            let size = sizes[at % sizes.len()].min(rest.len());
            hold.feed(patterns.as_ref(), &rest[..size], &mut out);
            rest = &rest[size..];
            at += 1;
            seen += size;
            // Exactly the longest suffix that is a proper prefix of a form is held.
            let longest = (0..=seen).find(|from| {
                let suffix = &text[*from..seen];
                forms.iter().any(|form| form.len() > suffix.len() && form.starts_with(suffix))
            }).unwrap_or(seen);
            prop_assert_eq!(hold.len(), seen - longest);
        }
        hold.flush(&mut out);
        let expected = model(&forms, &text);
        prop_assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&expected));
    }

    #[test]
    fn long_texts_agree_with_the_model(
        values in proptest::collection::vec("[a-f]{4,9}", 1..6),
        text in "[a-g ]{0,400}", cut in any::<prop::sample::Index>(),
    ) {
        let masks: Vec<Secret> = values.iter().map(Secret::new).collect();
        let mut forms = BTreeSet::new();
        masks.iter().for_each(|mask| { forms::add(mask, &mut forms); });
        let cut = cut.index(text.len() + 1);
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let shown = masked(&values, &[&text.as_bytes()[..cut], &text.as_bytes()[cut..]]);
        prop_assert_eq!(shown.into_bytes(), model(&forms, text.as_bytes()));
    }
}
