//! Passes against a reference interpreter, over decoders of many designs, storage orders and choices of passes.

mod decoder;
mod evaluate;

use proptest::prelude::*;

use super::*;
use crate::network::{NodeId, Recipe};
use crate::types::Op;
use decoder::{Design, Extras, designs};
use evaluate::{Matrix, evaluate};

fn plain() -> Design {
    Design {
        layers: 2,
        rope: true,
        layer_norm: false,
        gated: true,
        biases: [false; 5],
        swapped: false,
        k_leaks: false,
        extras: Extras::default(),
    }
}

fn count(graph: &Graph, name: &str) -> usize {
    graph.nodes.iter().filter(|node| node.op.name() == name).count()
}

fn rewrites(reports: &[PassReport], name: &str) -> usize {
    reports.iter().filter(|report| report.name == name).map(|report| report.rewrites).sum()
}

fn difference(a: &Matrix, b: &Matrix) -> f64 {
    assert_eq!((a.columns, a.data.len()), (b.columns, b.data.len()));
    assert!(a.data.iter().chain(&b.data).all(|x| x.is_finite()));
    a.data.iter().zip(&b.data).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// The graph with its nodes stored in another order.
fn shuffled(graph: &Graph, keys: &[u32]) -> Graph {
    let mut order = (0..graph.nodes.len()).collect::<Vec<_>>();
    order.sort_by_key(|index| keys[index % keys.len()].wrapping_mul(*index as u32 + 1));
    Graph { nodes: order.into_iter().map(|index| graph[NodeId(index)].clone()).collect(), ..graph.clone() }
}

/// The lines of [`Graph::text`] that list nodes.
fn printed_nodes(graph: &Graph) -> String {
    graph.text().split_once("nodes\n").unwrap().1.to_string()
}

#[test]
fn everything_fuses() {
    let (mut graph, _) = plain().build();
    let reports = run(&mut graph, PassSet::all()).unwrap();
    for (pass, wanted) in [("qkv", 2), ("gated_linear", 2), ("residual_norm", 4), ("attention", 2), ("dead_code", 0)] {
        assert_eq!(rewrites(&reports, pass), wanted, "{pass}");
    }
    for basic in ["rms_norm", "add", "mul", "activate", "rope", "cache_append", "attention"] {
        let allowed = usize::from(basic == "rms_norm");
        assert_eq!(count(&graph, basic), allowed, "{basic} in\n{}", graph.text());
    }
    // Two layers of (qkv, o, down) and the head.
    assert_eq!(count(&graph, "linear"), 7);
    let used = graph.nodes.iter().flat_map(|node| &node.weights).collect::<std::collections::HashSet<_>>();
    assert_eq!(used.len(), graph.weights.len());
}

#[test]
fn everything_fuses_around_norms_of_heads_and_norms_after_parts() {
    let extras = Extras { head_norms: true, norms_after: true, gains_above_one: true, caps: true, joint: true };
    let (mut graph, _) = Design { extras, ..plain() }.build();
    let reports = run(&mut graph, PassSet::all()).unwrap();
    for (pass, wanted) in [("qkv", 2), ("gated_linear", 2), ("residual_norm", 4), ("attention", 2)] {
        assert_eq!(rewrites(&reports, pass), wanted, "{pass}");
    }
    // Two layers of (q, k, after attention, after the feed-forward part), and the first norm of all.
    for (op, wanted) in [("rms_norm", 2 * 4 + 1), ("linear", 7), ("add_rms_norm", 4), ("rope", 0), ("add", 0)] {
        assert_eq!(count(&graph, op), wanted, "{op} in\n{}", graph.text());
    }
    // The tensor that held q, k and v is one matrix again.
    let joint = graph.weights.iter().filter(|w| matches!(&w.recipe, Recipe::Rows { start: 0, .. })).map(|w| w.shape[0]);
    assert_eq!(joint.filter(|rows| *rows == 8 * 4).count(), 2);
}

/// A sum whose parts are normed, as no family does: there is no operation that adds and norms parts.
#[test]
fn a_sum_is_not_taken_into_a_norm_of_its_parts() {
    let (mut graph, tensors) = plain().build();
    let sum = graph.nodes.iter().find(|node| matches!(node.op, Op::Add)).unwrap().outputs[0];
    let norm =
        graph.nodes.iter_mut().find(|node| matches!(node.op, Op::RmsNorm { .. }) && node.inputs == [sum]).unwrap();
    let whole = norm.weights[0];
    let half = graph.weights[whole.0].recipe.clone().rows(0, 4);
    let half = graph.weight("half", &[4], half);
    graph.nodes.iter_mut().filter(|node| node.weights == [whole]).for_each(|node| node.weights = vec![half]);
    let before = evaluate(&graph, &tensors);
    let reports = run(&mut graph, PassSet::all()).unwrap();
    assert_eq!(rewrites(&reports, "residual_norm"), 3);
    assert!(difference(&before, &evaluate(&graph, &tensors)) < 1e-9);
}

#[test]
fn fused_nodes_name_what_they_replace() {
    let (before, _) = plain().build();
    let mut graph = before.clone();
    run(&mut graph, PassSet::all()).unwrap();
    let mut origins = graph.nodes.iter().flat_map(|node| node.fused.clone()).collect::<Vec<_>>();
    let kept = graph.nodes.iter().filter(|node| node.fused.is_empty() && !matches!(node.op, Op::Slice { .. }));
    origins.extend(kept.filter(|node| !matches!(node.op, Op::GatherRows)).map(|node| node.name.clone()));
    let mut names =
        before.nodes.iter().filter(|n| !matches!(n.op, Op::GatherRows)).map(|n| n.name.clone()).collect::<Vec<_>>();
    origins.sort();
    names.sort();
    assert_eq!(origins, names);
}

#[test]
fn a_pass_that_is_off_leaves_its_pattern() {
    for (pass, op, left) in [
        ("qkv", "slice", 0),
        ("gated_linear", "gated_linear", 0),
        ("residual_norm", "add_rms_norm", 0),
        ("attention", "fused_attention", 0),
        ("gather_early", "gather_rows", 1),
    ] {
        let (mut graph, _) = plain().build();
        let reports = run(&mut graph, PassSet::all().with(pass, false).unwrap()).unwrap();
        assert!(reports.iter().all(|report| report.name != pass));
        assert_eq!(count(&graph, op), left, "{pass}");
    }
    assert!(
        matches!(PassSet::all().with("no_such", true), Err(Error::InvalidArgument { what, .. }) if what == "no_such")
    );
}

#[test]
fn a_shared_rope_is_not_taken_from_its_other_user() {
    let (mut graph, _) = Design { k_leaks: true, ..plain() }.build();
    let reports = run(&mut graph, PassSet::all()).unwrap();
    assert_eq!(rewrites(&reports, "attention"), 0);
    assert_eq!(rewrites(&reports, "qkv"), 2);
    assert_eq!(count(&graph, "rope"), 4);
}

#[test]
fn a_shared_activation_is_not_taken_from_its_other_user() {
    let (mut graph, tensors) = Design { gated: false, layers: 1, ..plain() }.build();
    let activate = graph.nodes.iter().find(|node| matches!(node.op, Op::Activate { .. })).unwrap();
    let (raw, active) = (activate.inputs[0], activate.outputs[0]);
    let twice = graph.apply(Op::Add, &[raw, active], &[], "twice").unwrap();
    let down = graph.nodes.iter_mut().find(|node| node.inputs == [active] && matches!(node.op, Op::Linear { .. }));
    down.unwrap().inputs[0] = twice;
    let before = evaluate(&graph, &tensors);
    let reports = run(&mut graph, PassSet::all()).unwrap();
    assert_eq!(rewrites(&reports, "linear_activation"), 0);
    assert!(difference(&before, &evaluate(&graph, &tensors)) < 1e-9);
}

#[test]
fn dead_nodes_do_not_stop_a_rewrite_but_are_safe_when_kept() {
    for keep in [false, true] {
        let (mut graph, _) = plain().build();
        let (wanted, rope) = (graph.nodes.len(), graph.nodes.iter().find(|n| matches!(n.op, Op::Rope(_))).unwrap());
        let value = rope.outputs[0];
        graph.apply(Op::Mul, &[value, value], &[], "dead").unwrap();
        let reports = run(&mut graph, PassSet::all().with("dead_code", !keep).unwrap()).unwrap();
        assert_eq!(rewrites(&reports, "attention"), if keep { 1 } else { 2 });
        assert!(graph.nodes.len() < wanted);
        assert_eq!(graph.nodes.iter().any(|node| node.name == "dead"), keep);
    }
}

#[test]
fn a_last_layer_computes_only_what_its_logits_need() {
    let (mut graph, _) = plain().build();
    run(&mut graph, PassSet::all()).unwrap();
    let rows = |name: &str| {
        let of = |node: &&crate::network::Node| node.op.name() == name;
        graph.nodes.iter().filter(of).map(|node| graph[node.outputs[0]].shape[0].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(rows("gated_linear").iter().filter(|rows| *rows == "logit_rows").count(), 1);
    assert_eq!(rows("fused_attention"), ["tokens", "tokens"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn passes_do_not_change_what_is_computed(
        design in designs(),
        keys in prop::collection::vec(any::<u32>(), 1..40),
        off in prop::collection::vec(prop::sample::select(PassSet::names().collect::<Vec<_>>()), 0..4),
    ) {
        let (graph, tensors) = design.build();
        let before = evaluate(&graph, &tensors);
        let mut fused = shuffled(&graph, &keys);
        let set = off.iter().fold(PassSet::all(), |set, name| set.with(name, false).unwrap());
        run(&mut fused, set).unwrap();
        prop_assert!(difference(&before, &evaluate(&fused, &tensors)) < 1e-9, "{}", fused.text());
    }

    #[test]
    fn storage_order_changes_nothing(design in designs(), keys in prop::collection::vec(any::<u32>(), 1..40)) {
        let (mut graph, _) = design.build();
        let mut other = shuffled(&graph, &keys);
        prop_assert_eq!(graph.text(), other.text());
        let reports = run(&mut graph, PassSet::all()).unwrap();
        prop_assert_eq!(&reports, &run(&mut other, PassSet::all()).unwrap());
        prop_assert_eq!(printed_nodes(&graph), printed_nodes(&other));
    }

    #[test]
    fn swapped_operands_fuse_as_well(design in designs()) {
        let reports = [false, true].map(|swapped| {
            let (mut graph, _) = Design { swapped, ..design.clone() }.build();
            run(&mut graph, PassSet::all()).unwrap()
        });
        prop_assert_eq!(&reports[0], &reports[1]);
    }
}
