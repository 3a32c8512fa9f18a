//! Version 1 of the protocol stays what it was: everything in `v1.frozen.txt` must still be there,
//! with the same name, number, type and place. Additions are welcome once they are frozen too.

use std::{collections::BTreeSet, env, fs, path::PathBuf};

use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

const BLESS: &str = "HELIOS_BLESS=1 cargo test -p helios-proto --test compatibility";

fn message(lines: &mut BTreeSet<String>, prefix: &str, message: &DescriptorProto) {
    let name = format!("{prefix}.{}", message.name());
    lines.insert(format!("message {name}"));
    for field in &message.field {
        let label = if field.label() == Label::Repeated {
            "repeated "
        } else {
            ""
        };
        let kind = match field.r#type() {
            Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
            scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
        };
        let oneof = field
            .oneof_index
            .and_then(|index| message.oneof_decl.get(usize::try_from(index).ok()?));
        let place = oneof.map_or(String::new(), |oneof| format!(" in oneof {}", oneof.name()));
        lines.insert(format!(
            "field {name} {} {} {label}{kind}{place}",
            field.number(),
            field.name()
        ));
    }
    for inner in &message.nested_type {
        self::message(lines, &name, inner);
    }
    for inner in &message.enum_type {
        enumeration(lines, &name, inner);
    }
}

fn enumeration(lines: &mut BTreeSet<String>, prefix: &str, found: &EnumDescriptorProto) {
    for value in &found.value {
        lines.insert(format!(
            "value {prefix}.{} {} {}",
            found.name(),
            value.number(),
            value.name()
        ));
    }
}

/// One line for everything that an earlier build may rely on.
fn surface(descriptors: &FileDescriptorSet) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for file in &descriptors.file {
        for found in &file.message_type {
            message(&mut lines, file.package(), found);
        }
        for found in &file.enum_type {
            enumeration(&mut lines, file.package(), found);
        }
        for service in &file.service {
            for method in &service.method {
                lines.insert(format!(
                    "rpc {}.{}.{} {}{} -> {}{}",
                    file.package(),
                    service.name(),
                    method.name(),
                    if method.client_streaming() { "stream " } else { "" },
                    method.input_type().trim_start_matches('.'),
                    if method.server_streaming() { "stream " } else { "" },
                    method.output_type().trim_start_matches('.'),
                ));
            }
        }
    }
    lines
}

fn lines(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(str::to_owned)
        .collect()
}

fn current() -> FileDescriptorSet {
    FileDescriptorSet::decode(helios_proto::DESCRIPTORS).expect("the build's own descriptor set decodes")
}

#[test]
fn version_1_keeps_its_promises() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("v1.frozen.txt");
    let current = surface(&current());
    let frozen = lines(&fs::read_to_string(&path).unwrap_or_default());

    let broken: Vec<_> = frozen.difference(&current).cloned().collect();
    assert!(
        broken.is_empty(),
        "version 1 of the protocol is broken for agents and nodes of earlier builds. These no longer exist as \
         they were:\n  {}\nPut them back: a name, number or type is never changed or reused; add a new field \
         instead. (Blessing does not help: it only takes additions.)",
        broken.join("\n  ")
    );

    let added: Vec<_> = current.difference(&frozen).cloned().collect();
    if !added.is_empty() && env::var_os("HELIOS_BLESS").is_some() {
        let mut text = String::from(
            "# Version 1 of helios.agent.v1, frozen: no line here may ever change or go away.\n\
             # proto/tests/compatibility.rs compares; it adds lines when run with HELIOS_BLESS=1.\n",
        );
        for line in &current {
            text.push_str(line);
            text.push('\n');
        }
        fs::write(&path, text).expect("write v1.frozen.txt");
        return;
    }
    assert!(
        added.is_empty(),
        "the protocol has grown:\n  {}\nIf that is meant, freeze it and commit v1.frozen.txt:\n  {BLESS}",
        added.join("\n  ")
    );
}

/// What the comparison must notice, each tried on a copy of the real descriptor set.
#[test]
fn breaking_changes_are_noticed() {
    fn find<'a>(set: &'a mut FileDescriptorSet, name: &str) -> &'a mut DescriptorProto {
        let messages = set.file.iter_mut().flat_map(|file| &mut file.message_type);
        messages
            .into_iter()
            .find(|message| message.name() == name)
            .expect("the message exists")
    }
    type Change = (&'static str, fn(&mut FileDescriptorSet));
    let changes: [Change; 7] = [
        ("field removed", |set| {
            find(set, "Exec").field.remove(0);
        }),
        ("field renumbered", |set| find(set, "Exec").field[1].number = Some(77)),
        ("field retyped", |set| find(set, "Exec").field[1].set_type(Type::Uint64)),
        ("repeated taken away", |set| {
            find(set, "Exec").field[0].set_label(Label::Optional)
        }),
        ("field moved out of its oneof", |set| {
            find(set, "Hello").field[5].oneof_index = None
        }),
        ("message removed", |set| {
            set.file[0].message_type.retain(|message| message.name() != "Walk");
        }),
        ("rpc no longer streams", |set| {
            set.file[0].service[0].method[0].client_streaming = Some(false)
        }),
    ];
    let before = surface(&current());
    for (what, change) in changes {
        let mut changed = current();
        change(&mut changed);
        assert!(!before.is_subset(&surface(&changed)), "not noticed: {what}");
    }

    let mut grown = current();
    let mut field = find(&mut grown, "Exec").field[0].clone();
    field.name = Some("later".into());
    field.number = Some(78);
    find(&mut grown, "Exec").field.push(field);
    assert!(before.is_subset(&surface(&grown)), "an addition counts as breaking");
}
