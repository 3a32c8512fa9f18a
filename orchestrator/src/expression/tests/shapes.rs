//! A tree that is written as text is read as the same tree.

use proptest::prelude::*;

use super::*;

fn node(kind: NodeKind) -> Node {
    Node { span: 0..0, kind }
}

/// Without places.
fn bare(from: &Node) -> Node {
    let one = |of: &Node| Box::new(bare(of));
    let all = |of: &[Node]| of.iter().map(bare).collect();
    node(match &from.kind {
        NodeKind::Literal(value) => NodeKind::Literal(value.clone()),
        NodeKind::Context(name) => NodeKind::Context(name.clone()),
        NodeKind::Index { of, by } => NodeKind::Index {
            of: one(of),
            by: one(by),
        },
        NodeKind::Filter { of } => NodeKind::Filter { of: one(of) },
        NodeKind::Call { function, arguments } => NodeKind::Call {
            function: *function,
            arguments: all(arguments),
        },
        NodeKind::Not(of) => NodeKind::Not(one(of)),
        NodeKind::Compare {
            comparison,
            left,
            right,
        } => NodeKind::Compare {
            comparison: *comparison,
            left: one(left),
            right: one(right),
        },
        NodeKind::And(operands) => NodeKind::And(all(operands)),
        NodeKind::Or(operands) => NodeKind::Or(all(operands)),
    })
}

/// How tightly a part holds together, as the language has it.
fn strength(of: &Node) -> u8 {
    match &of.kind {
        NodeKind::Or(_) => 0,
        NodeKind::And(_) => 1,
        NodeKind::Compare {
            comparison: Comparison::Equal | Comparison::NotEqual,
            ..
        } => 2,
        NodeKind::Compare { .. } => 3,
        NodeKind::Not(_) => 4,
        NodeKind::Literal(_) => 5,
        _ => 6,
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with('n')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

/// With as few brackets as can be, so that precedence is tried.
fn written(of: &Node, least: u8) -> String {
    let many = |operands: &[Node], operator: &str, least: u8| {
        let texts: Vec<String> = operands.iter().map(|operand| written(operand, least)).collect();
        texts.join(operator)
    };
    let text = match &of.kind {
        NodeKind::Literal(Value::String(text)) => format!("'{}'", text.as_str().replace('\'', "''")),
        NodeKind::Literal(Value::Null) => "null".into(),
        NodeKind::Literal(value) => value.to_text().as_str().to_owned(),
        NodeKind::Context(name) => name.to_string(),
        NodeKind::Index { of, by } => match &by.kind {
            NodeKind::Literal(Value::String(name)) if is_name(name.as_str()) => {
                format!("{}.{}", written(of, 6), name.as_str())
            }
            _ => format!("{}[{}]", written(of, 6), written(by, 0)),
        },
        NodeKind::Filter { of } => format!("{}.*", written(of, 6)),
        NodeKind::Call { function, arguments } => format!("{}({})", function.name(), many(arguments, ", ", 0)),
        NodeKind::Not(of) => format!("!{}", written(of, 4)),
        NodeKind::Compare {
            comparison,
            left,
            right,
        } => {
            let operator = match comparison {
                Comparison::Equal => "==",
                Comparison::NotEqual => "!=",
                Comparison::Less => "<",
                Comparison::LessOrEqual => "<=",
                Comparison::Greater => ">",
                Comparison::GreaterOrEqual => ">=",
            };
            // Left-associative.
            format!(
                "{} {operator} {}",
                written(left, strength(of)),
                written(right, strength(of) + 1)
            )
        }
        NodeKind::And(operands) => many(operands, "&&", 2),
        NodeKind::Or(operands) => many(operands, " || ", 1),
    };
    if strength(of) < least {
        format!("({text})")
    } else {
        text
    }
}

fn literals() -> impl Strategy<Value = Node> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i32>().prop_map(|number| Value::Number(f64::from(number) / 8.0)),
        "[a-z'\"${} é(,.]{0,8}".prop_map(|text| Value::from(text.as_str())),
        // A name, which can stand after a dot.
        "n[a-z0-9_-]{0,4}".prop_map(|text| Value::from(text.as_str())),
    ]
    .prop_map(|value| node(NodeKind::Literal(value)))
}

fn comparisons() -> impl Strategy<Value = Comparison> {
    prop::sample::select(vec![
        Comparison::Equal,
        Comparison::NotEqual,
        Comparison::Less,
        Comparison::LessOrEqual,
        Comparison::Greater,
        Comparison::GreaterOrEqual,
    ])
}

/// Operands of one `&&` or `||` are no such chains themselves: those would be one with it.
fn chain(operands: Vec<Node>, is_and: bool) -> Node {
    let operands = operands.into_iter().flat_map(|operand| match (operand.kind, is_and) {
        (NodeKind::And(nested), true) | (NodeKind::Or(nested), false) => nested,
        (kind, _) => vec![node(kind)],
    });
    let operands = operands.collect();
    node(if is_and {
        NodeKind::And(operands)
    } else {
        NodeKind::Or(operands)
    })
}

fn trees() -> impl Strategy<Value = Node> {
    let contexts = prop::sample::select(CONTEXTS.to_vec()).prop_map(|name| node(NodeKind::Context(name.into())));
    let leaves = prop_oneof![literals(), contexts];
    leaves.prop_recursive(5, 40, 4, |inner| {
        let some = |least, most| prop::collection::vec(inner.clone(), least..=most);
        let one = || inner.clone().prop_map(Box::new);
        let call = |function: Function, least, most| {
            some(least, most).prop_map(move |arguments| node(NodeKind::Call { function, arguments }))
        };
        prop_oneof![
            (one(), one()).prop_map(|(of, by)| node(NodeKind::Index { of, by })),
            one().prop_map(|of| node(NodeKind::Filter { of })),
            one().prop_map(|of| node(NodeKind::Not(of))),
            (comparisons(), one(), one()).prop_map(|(comparison, left, right)| node(NodeKind::Compare {
                comparison,
                left,
                right
            })),
            (some(2, 4), any::<bool>()).prop_map(|(operands, is_and)| chain(operands, is_and)),
            call(Function::Join, 1, 2),
            call(Function::Case, 3, 3),
            call(Function::HashFiles, 1, 3),
            call(Function::Success, 0, 2),
            call(Function::Always, 0, 0),
        ]
    })
}

proptest! {
    #[test]
    fn a_tree_is_read_as_it_was_written(tree in trees()) {
        let text = written(&tree, 0);
        let expression = Expression::parse(&text, &ALL);
        let expression = expression.map_err(|error| TestCaseError::fail(format!("{text}: {error:?}")))?;
        prop_assert_eq!(bare(expression.root()), tree, "{}", text);
    }

    /// The place of each part is that of its text, brackets aside: it means the same alone.
    #[test]
    fn each_part_stands_at_its_place(tree in trees()) {
        let text = written(&tree, 0);
        let expression = Expression::parse(&text, &ALL).unwrap();
        let mut parts = vec![expression.root()];
        while let Some(part) = parts.pop() {
            match &part.kind {
                NodeKind::And(operands) | NodeKind::Or(operands) => parts.extend(operands),
                NodeKind::Call { arguments, .. } => parts.extend(arguments),
                NodeKind::Compare { left, right, .. } => parts.extend([&**left, &**right]),
                NodeKind::Not(of) | NodeKind::Filter { of } | NodeKind::Index { of, .. } => parts.push(&**of),
                NodeKind::Literal(_) | NodeKind::Context(_) => {}
            }
            let alone = Expression::parse(&text[part.span.clone()], &ALL);
            let alone = alone.map_err(|error| TestCaseError::fail(format!("{text} {:?}: {error:?}", part.span)))?;
            prop_assert_eq!(bare(alone.root()), bare(part), "{} {:?}", text, part.span);
        }
    }
}
