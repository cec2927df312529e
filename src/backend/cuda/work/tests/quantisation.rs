//! Which operands become e4m3, where and how often.

use super::super::{Choice, Norm, Work};
use super::sketch::{BY_BLOCK, BY_ROW, Kind, PLAIN, Sketch, part};
use super::{BOTH, NEITHER, QUANTISE, shorts, works};
use crate::engine::View;

/// A norm with readers of some kinds; its works.
fn read_by(kinds: &[Kind], choice: Choice) -> Vec<String> {
    let mut sketch = Sketch::new();
    let x = sketch.embedding(256);
    let normed = sketch.rms_norm(x);
    let made: Vec<View> = kinds.iter().map(|kind| sketch.linear(normed, 256, *kind)).collect();
    let last = made.into_iter().reduce(|x, y| sketch.mul(x, y)).expect("a reader");
    shorts(&sketch.finish(last), choice).into_iter().filter(|work| work != "mul").collect()
}

#[test]
fn a_norm_writes_e4m3_where_nobody_reads_more() {
    assert_eq!(read_by(&[BY_ROW, BY_ROW], QUANTISE)[1..4], ["norm to e4m3", "e4m3 linear", "e4m3 linear"]);
    assert_eq!(read_by(&[BY_BLOCK], QUANTISE)[1..3], ["norm to blocks", "e4m3 linear"]);
    assert_eq!(read_by(&[PLAIN, BY_ROW], QUANTISE)[1..4], ["norm to 16 bits to e4m3", "linear", "e4m3 linear"]);
    let both = ["norm to 16 bits to blocks", "e4m3 linear", "quantise", "e4m3 linear", "e4m3 linear"];
    assert_eq!(read_by(&[BY_BLOCK, BY_ROW, BY_BLOCK], QUANTISE)[1..6], both);
    assert_eq!(read_by(&[PLAIN], QUANTISE)[1..3], ["norm to 16 bits", "linear"]);
    assert_eq!(read_by(&[BY_ROW], NEITHER)[1..3], ["norm to 16 bits", "linear"]);
    assert_eq!(read_by(&[BY_ROW, BY_BLOCK], BOTH)[1..3], ["norm linear", "norm linear"], "codes are not normed");
}

#[test]
fn a_norm_keeps_its_16_bits_for_an_output_and_for_parts() {
    let norm_of = |read: fn(&mut Sketch, View)| -> Norm {
        let mut sketch = Sketch::new();
        let x = sketch.embedding(256);
        let normed = sketch.layer_norm(x);
        let y = sketch.linear(normed, 256, BY_ROW);
        read(&mut sketch, normed);
        let works = works(&sketch.finish(y), QUANTISE);
        let norm =
            works.works.iter().find_map(|work| if let Work::Norm(norm) = work { Some(norm.clone()) } else { None });
        norm.expect("a norm")
    };
    let kept = |norm: Norm| (norm.out.is_some(), norm.quantised.is_some());
    assert_eq!(kept(norm_of(|_, _| ())), (false, true));
    assert_eq!(kept(norm_of(|sketch, normed| sketch.output("normed", normed))), (true, true));
    assert_eq!(kept(norm_of(|sketch, normed| _ = sketch.linear(part(normed, 128, 128), 64, BY_ROW))), (true, true));
    assert_eq!(kept(norm_of(|sketch, normed| _ = sketch.gather(normed))), (true, true));
}

#[test]
fn a_norm_of_heads_stays_alone() {
    for choice in [QUANTISE, BOTH] {
        let mut sketch = Sketch::new();
        let x = sketch.embedding(256);
        let normed = sketch.head_norm(x, 64);
        let y = sketch.linear(normed, 256, BY_ROW);
        let works = shorts(&sketch.finish(y), choice);
        assert_eq!(works[1..4], ["norm to 16 bits", "quantise", "e4m3 linear"]);
    }
}

#[test]
fn an_operand_is_quantised_once() {
    let mut sketch = Sketch::new();
    let x = sketch.embedding(256);
    let normed = sketch.rms_norm(x);
    let wide = sketch.linear(normed, 512, PLAIN);
    let (left, right) = (part(wide, 0, 256), part(wide, 256, 256));
    let made: Vec<View> = [(left, BY_ROW), (right, BY_ROW), (left, BY_ROW), (left, BY_BLOCK), (wide, BY_ROW)]
        .into_iter()
        .map(|(x, kind)| sketch.linear(x, 256, kind))
        .collect();
    let last = made.into_iter().reduce(|x, y| sketch.mul(x, y)).expect("five");
    let plan = sketch.finish(last);
    let works = works(&plan, QUANTISE);
    let quantised: Vec<_> = works
        .works
        .iter()
        .filter_map(|work| if let Work::Quantise { x, out } = work { Some((x, out)) } else { None })
        .map(|(x, out)| ((x.start, x.columns, x.stride), out.by_block, out.codes.stride, out.scale.columns))
        .collect();
    let wanted = [
        ((0, 256, 512), false, 256, 1),
        ((256, 256, 512), false, 256, 1),
        ((0, 256, 512), true, 256, 2),
        ((0, 512, 512), false, 512, 1),
    ];
    assert_eq!(quantised, wanted);
}

#[test]
fn what_tensor_cores_cannot_read_stays_16_bits() {
    let quantises = |width: usize, start: usize, columns: usize, n: usize| {
        let mut sketch = Sketch::new();
        let x = sketch.embedding(width);
        let normed = sketch.rms_norm(x);
        let y = sketch.linear(part(normed, start, columns), n, BY_ROW);
        let z = sketch.linear(normed, n, PLAIN);
        let last = sketch.mul(y, z);
        shorts(&sketch.finish(last), QUANTISE).contains(&"e4m3 linear".to_string())
    };
    assert!(quantises(256, 128, 128, 64));
    assert!(!quantises(256, 0, 64, 64), "columns that are no multiple of 128");
    assert!(!quantises(256, 8, 128, 64), "an odd start");
    assert!(!quantises(264, 0, 128, 64), "an odd row");
    assert!(!quantises(256, 0, 128, 60), "odd results");
}
