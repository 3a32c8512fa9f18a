use super::{lexer::Token, *};
use crate::program::testing::Bed;

fn words(texts: &[&str]) -> Vec<Token> {
    texts.iter().map(|text| Token::Word((*text).to_owned())).collect()
}

#[test]
fn the_lexer_is_zonecfgs() {
    let lines = lexer::lines("# a comment\nset value=\"a ; b\"; end\nset x=\"open\n\nadd a#b");
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[0].number, 2);
    let value = [
        words(&["set", "value"]),
        vec![Token::Sign('='), Token::Quoted("a ; b".into())],
    ]
    .concat();
    assert_eq!(lines[0].tokens, value);
    assert_eq!(lines[1].tokens, words(&["end"]));
    assert_eq!(lines[2].tokens.last(), Some(&Token::Quoted("open".into())));
    assert_eq!(lines[3].tokens, words(&["add", "a#b"]));
    let comma = lexer::lines("set a=b,c\nset a=[b,c]");
    assert_eq!(comma[0].tokens.last(), Some(&Token::Word("b,c".into())));
    assert_eq!(comma[1].tokens.len(), 8);
}

const FILE: &str = r#"create -b
set brand=bhyve
set zonepath="/zones/hci/z1"
set autoboot=false
set ip-type=exclusive
set cpu-shares=100
set max-lwps=68
add net
set physical="hciv7"
end
add device
set match="/dev/zvol/rdsk/rpool/hci/machines/z1"
end
add attr
set name=disk1
set type=string
set value="/seed.img,ro"
end
add attr
set name=hci-note
set type=string
set value="a b; c=[d] <&>"
end
verify
commit
"#;

#[test]
fn a_file_makes_a_zone() {
    let bed = Bed::new();
    let file = bed.file("z1", FILE);
    bed.ok(&format!("zonecfg -z z1 -f {file}"));
    let xml = std::fs::read_to_string(bed.sim.root().join("etc/zones/z1.xml")).unwrap();
    for line in [
        "<zone name=\"z1\" zonepath=\"/zones/hci/z1\" autoboot=\"false\" brand=\"bhyve\" ip-type=\"exclusive\">",
        "  <rctl name=\"zone.cpu-shares\">",
        "    <rctl-value priv=\"privileged\" limit=\"100\" action=\"none\"/>",
        "  <network physical=\"hciv7\"/>",
        "  <attr name=\"hci-note\" type=\"string\" value=\"a b; c=[d] &lt;&amp;&gt;\"/>",
    ] {
        assert!(xml.contains(line), "{line}\n{xml}");
    }
    let config = xml::read(&xml).unwrap();
    assert_eq!(xml::write(&config), xml);
    assert_eq!(config.attr("hci-note"), Some("a b; c=[d] <&>"));
    assert_eq!(config.limit("zone.max-lwps"), Some(68));
    let index = std::fs::read_to_string(bed.sim.root().join("etc/zones/index")).unwrap();
    assert_eq!(index, "global:installed:/\nz1:configured:/zones/hci/z1:\n");
    // What export prints makes the same zone again.
    let again = bed.file("z2", &bed.ok("zonecfg -z z1 export").replace("/z1\n", "/z2\n"));
    bed.ok(&format!("zonecfg -z z2 -f {again}"));
    let second = std::fs::read_to_string(bed.sim.root().join("etc/zones/z2.xml")).unwrap();
    assert_eq!(second.replace("z2", "z1"), xml);
    assert!(
        bed.no(&format!("zonecfg -z z1 -f {file}"), 1)
            .contains("Zone exists, input not from terminal")
    );
    bed.no("zonecfg -z z1 create -b ; set autoboot=true", 1);
    assert!(
        bed.ok("zonecfg -z z1 export").contains("set autoboot=false\n"),
        "the run ended at the create"
    );
    bed.ok("zonecfg -z z1 delete -F");
    assert_eq!(bed.no("zonecfg -z z1 delete -F", 1), "z1: No such zone configured\n");
}

#[test]
fn a_file_stops_at_its_first_error_and_words_do_not() {
    let bed = Bed::new();
    let file = bed.file(
        "z",
        "create -b\nset zonepath=/zones/z\nset brand=bhyve\nset nonsense=1\nset autoboot=true\n",
    );
    let said = bed.no(&format!("zonecfg -z z -f {file}"), 1);
    assert!(said.starts_with(&format!("On line 4 of {file}:\n")), "{said}");
    let config = bed.sim.mutate(|host| load(host, "z")).unwrap().unwrap().unwrap();
    assert!(
        !config.autoboot,
        "what verified was committed, what followed the error was not run"
    );
    bed.no(
        "zonecfg -z y create -b ; set zonepath=/zones/y ; set nonsense=1 ; set autoboot=true",
        1,
    );
    let config = bed.sim.mutate(|host| load(host, "y")).unwrap().unwrap().unwrap();
    assert!(config.autoboot);
    bed.sim
        .mutate(|host| host.faults.zonecfg_commits_nothing_on_error = true)
        .unwrap();
    bed.no("zonecfg -z x create -b ; set zonepath=/zones/x ; nonsense", 1);
    assert!(bed.sim.mutate(|host| load(host, "x")).unwrap().unwrap().is_none());
}

#[test]
fn what_is_wrong_is_refused() {
    let bed = Bed::new();
    assert!(bed.no("zonecfg -z -bad create -b", 2).contains("-bad: Bogus zone name"));
    assert!(bed.no("zonecfg -z global create -b", 2).contains("Bogus zone name"));
    bed.no("zonecfg -x", 2);
    for (program, text) in [
        ("set zonepath=a", "a is not an absolute path."),
        ("set ip-type=other", "ip-type value must be either"),
        ("set value=1=2", "syntax error at '='"),
        ("set a b", "syntax error at 'b'"),
        (
            "add attr ; set name=a_b ; end",
            "Invalid attr name a_b: can only contain alpha-numeric characters, plus '-' and '.'.",
        ),
        (
            "add attr ; set name=a ; set type=string ; set value=1 ; end ; add attr ; set name=a ; set type=string ; set value=2 ; end",
            "A attr resource with the name 'a' already exists.",
        ),
        (
            "add net ; set physical=a0 ; set address=10.0.0.1/24 ; end ; cancel",
            "net: address cannot be specified for an exclusive IP type",
        ),
        ("add device ; end ; cancel", "resource specification incomplete"),
        ("add device", "Resource incomplete."),
        ("end", "only valid in resource scope"),
        ("add nonsense", "syntax error at 'nonsense'"),
        (
            "set brand=none ; verify",
            "uses non-existent brand \"none\".  Unable to continue",
        ),
        ("remove attr name=none", "No such attr resource."),
    ] {
        let said = bed.no(
            &format!("zonecfg -z z create -F -b ; set zonepath=/zones/z ; {program}"),
            1,
        );
        assert!(said.contains(text), "{program}: {said}");
    }
    assert!(
        bed.no("zonecfg -z none set autoboot=true", 1)
            .contains("none: No such zone configured")
    );
    assert!(
        bed.no("zonecfg -z w create -b ; verify", 1)
            .contains("zonepath: Required property missing")
    );
}

#[test]
fn a_value_without_quotes_is_syntax() {
    let bed = Bed::new();
    bed.ok("zonecfg -z z create -b ; set zonepath=/zones/z ; set brand=bhyve");
    // What a careless caller would send for a value of `x; delete -F`.
    bed.no(
        "zonecfg -z z add attr ; set name=a ; set type=string ; set value=x; cancel ; delete -F ; end",
        1,
    );
    assert!(bed.sim.mutate(|host| load(host, "z")).unwrap().unwrap().is_none());
}

mod tokens {
    use super::*;

    #[test]
    fn any_text_is_read_without_panic() {
        // Every pair and triple of the signs that mean something.
        let signs = [
            "add", "\"", ";", "=", "[", "]", "(", ")", ",", "\n", "#", " ", "set a", "x",
        ];
        for a in signs {
            for b in signs {
                for c in signs {
                    for line in lexer::lines(&format!("{a}{b}{c}")) {
                        let _ = grammar::command(&line.tokens);
                    }
                }
            }
        }
    }
}
