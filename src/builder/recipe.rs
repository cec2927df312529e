//! Evaluates weight recipes a block at a time, so that a build never holds more than a few blocks of weights.

use std::ops::Range;

use crate::checkpoint::WeightSource;
use crate::error::{Error, Result};
use crate::network::Recipe;
use crate::types::e4m3;

/// What a recipe is evaluated to: values as f32, or the e4m3 codes of quantised tensors.
pub(super) trait Element: Copy + Default {
    /// As [`WeightSource::read`].
    fn read(
        source: &dyn WeightSource,
        name: &str,
        rows: Range<usize>,
        columns: Range<usize>,
        out: &mut [Self],
    ) -> Result<()>;

    /// A constant's element.
    fn constant(value: f32) -> Self;

    /// The element with `addend` more.
    fn plus(self, addend: f32) -> Self;
}

impl Element for f32 {
    fn read(
        source: &dyn WeightSource,
        name: &str,
        rows: Range<usize>,
        columns: Range<usize>,
        out: &mut [f32],
    ) -> Result<()> {
        source.read(name, rows, columns, out)
    }

    fn constant(value: f32) -> f32 {
        value
    }

    fn plus(self, addend: f32) -> f32 {
        self + addend
    }
}

impl Element for u8 {
    fn read(
        source: &dyn WeightSource,
        name: &str,
        rows: Range<usize>,
        columns: Range<usize>,
        out: &mut [u8],
    ) -> Result<()> {
        source.codes(name, rows, columns, out)
    }

    fn constant(value: f32) -> u8 {
        e4m3::encode(value)
    }

    fn plus(self, addend: f32) -> u8 {
        e4m3::encode(e4m3::decode(self) + addend)
    }
}

/// A recipe whose shapes are known: a matrix of `rows x columns`; a vector has one column.
pub(super) struct Evaluator<'a> {
    source: &'a dyn WeightSource,
    root: Node<'a>,
}

struct Node<'a> {
    rows: usize,
    columns: usize,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Tensor(&'a str),
    Transpose(Box<Node<'a>>),
    Concat(Vec<Node<'a>>),
    Rows { of: Box<Node<'a>>, start: usize },
    Plus { of: Box<Node<'a>>, addend: f32 },
    Constant(&'a [f32]),
}

impl<'a> Evaluator<'a> {
    /// # Errors
    /// `InvalidCheckpoint` naming the weight or tensor when a tensor is missing or the recipe does not make `shape`.
    pub(super) fn new(source: &'a dyn WeightSource, recipe: &'a Recipe, name: &str, shape: &[usize]) -> Result<Self> {
        let root = resolve(source, recipe)?;
        let wanted = match shape {
            [rows] => (*rows, 1),
            [rows, columns] => (*rows, *columns),
            _ => return Err(invalid(format!("weight `{name}`"), "it is neither a vector nor a matrix")),
        };
        match (root.rows, root.columns) == wanted {
            true => Ok(Self { source, root }),
            false => {
                let why = format!("its recipe makes [{}, {}] instead of {shape:?}", root.rows, root.columns);
                Err(invalid(format!("weight `{name}`"), &why))
            }
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.root.rows
    }

    pub(super) fn columns(&self) -> usize {
        self.root.columns
    }

    /// Writes whole rows to `out`, row-major.
    pub(super) fn read<T: Element>(&self, rows: Range<usize>, out: &mut [T]) -> Result<()> {
        self.root.read(self.source, rows, 0..self.root.columns, out)
    }
}

fn resolve<'a>(source: &dyn WeightSource, recipe: &'a Recipe) -> Result<Node<'a>> {
    let node = match recipe {
        Recipe::Tensor(name) => {
            let what = || format!("tensor `{name}`");
            let shape = source.shape(name).ok_or_else(|| invalid(what(), "it is missing"))?;
            let (rows, columns) = match *shape {
                [rows] => (rows, 1),
                [rows, columns] => (rows, columns),
                _ => return Err(invalid(what(), &format!("shape {shape:?} is neither a vector's nor a matrix's"))),
            };
            Node { rows, columns, kind: Kind::Tensor(name) }
        }
        Recipe::Transpose(of) => {
            let of = resolve(source, of)?;
            Node { rows: of.columns, columns: of.rows, kind: Kind::Transpose(Box::new(of)) }
        }
        Recipe::Concat(parts) => {
            let parts = parts.iter().map(|part| resolve(source, part)).collect::<Result<Vec<_>>>()?;
            let columns = parts.first().map_or(0, |part| part.columns);
            if parts.iter().any(|part| part.columns != columns) {
                return Err(invalid(format!("recipe {recipe:?}"), "its parts differ in columns"));
            }
            Node { rows: parts.iter().map(|part| part.rows).sum(), columns, kind: Kind::Concat(parts) }
        }
        Recipe::Rows { of, start, rows } => {
            let of = resolve(source, of)?;
            if start.checked_add(*rows).is_none_or(|end| end > of.rows) {
                return Err(invalid(format!("recipe {recipe:?}"), &format!("it takes rows beyond {}", of.rows)));
            }
            Node { rows: *rows, columns: of.columns, kind: Kind::Rows { of: Box::new(of), start: *start } }
        }
        Recipe::Plus { of, addend } => {
            let of = resolve(source, of)?;
            Node { rows: of.rows, columns: of.columns, kind: Kind::Plus { of: Box::new(of), addend: *addend } }
        }
        Recipe::Constant(values) => Node { rows: values.len(), columns: 1, kind: Kind::Constant(values) },
    };
    Ok(node)
}

impl Node<'_> {
    /// Writes a block that lies within the node to `out`, which is as large.
    fn read<T: Element>(
        &self,
        source: &dyn WeightSource,
        rows: Range<usize>,
        columns: Range<usize>,
        out: &mut [T],
    ) -> Result<()> {
        match &self.kind {
            Kind::Tensor(name) => T::read(source, name, rows, columns, out),
            Kind::Rows { of, start } => of.read(source, rows.start + start..rows.end + start, columns, out),
            Kind::Transpose(of) => read_transposed(of, source, rows, columns, out),
            Kind::Concat(parts) => read_parts(parts, source, rows, columns, out),
            Kind::Plus { of, addend } => {
                of.read(source, rows, columns, out)?;
                out.iter_mut().for_each(|element| *element = element.plus(*addend));
                Ok(())
            }
            Kind::Constant(values) => {
                // One column: the block is these rows or nothing.
                let values = if columns.is_empty() { &[] } else { &values[rows] };
                out.iter_mut().zip(values).for_each(|(out, value)| *out = T::constant(*value));
                Ok(())
            }
        }
    }
}

fn read_transposed<T: Element>(
    of: &Node<'_>,
    source: &dyn WeightSource,
    rows: Range<usize>,
    columns: Range<usize>,
    out: &mut [T],
) -> Result<()> {
    let (height, width) = (rows.len(), columns.len());
    let mut block = vec![T::default(); height * width];
    of.read(source, columns, rows, &mut block)?;
    for (column, values) in block.chunks_exact(height.max(1)).enumerate() {
        for (row, value) in values.iter().enumerate() {
            out[row * width + column] = *value;
        }
    }
    Ok(())
}

fn read_parts<T: Element>(
    parts: &[Node<'_>],
    source: &dyn WeightSource,
    rows: Range<usize>,
    columns: Range<usize>,
    mut out: &mut [T],
) -> Result<()> {
    let mut first = 0;
    for part in parts {
        let start = rows.start.clamp(first, first + part.rows) - first;
        let end = rows.end.clamp(first, first + part.rows) - first;
        if start < end {
            let (head, tail) = out.split_at_mut((end - start) * columns.len());
            part.read(source, start..end, columns.clone(), head)?;
            out = tail;
        }
        first += part.rows;
    }
    Ok(())
}

fn invalid(what: String, why: &str) -> Error {
    Error::InvalidCheckpoint { what, why: why.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Dummy;

    fn source() -> Dummy {
        Dummy::new([("a".to_string(), vec![5, 7]), ("b".to_string(), vec![7, 3]), ("v".to_string(), vec![4])], 1)
    }

    fn tensor(name: &str, rows: usize, columns: usize) -> Vec<Vec<f32>> {
        let mut values = vec![0.0; rows * columns];
        source().read(name, 0..rows, 0..columns, &mut values).expect("reads");
        values.chunks(columns).map(<[f32]>::to_vec).collect()
    }

    #[test]
    fn nested_recipes_are_right_in_every_block() {
        let [a, b] = ["a", "b"].map(Recipe::tensor);
        // Rows 1..7 of [a; transpose(b)[1..3]; a[0..2]], transposed.
        let stacked = Recipe::Concat(vec![a.clone(), b.transposed().rows(1, 2), a.rows(0, 2)]);
        let recipe = Recipe::Transpose(Box::new(Recipe::Rows { of: Box::new(stacked), start: 1, rows: 6 }));

        let (a, b) = (tensor("a", 5, 7), tensor("b", 7, 3));
        let mut rows = a.clone();
        rows.extend((1..3).map(|column| b.iter().map(|row| row[column]).collect::<Vec<_>>()));
        rows.extend(a[..2].to_vec());
        let wanted: Vec<Vec<f32>> = (0..7).map(|column| rows[1..7].iter().map(|row| row[column]).collect()).collect();

        let source = source();
        let evaluator = Evaluator::new(&source, &recipe, "w", &[7, 6]).expect("fits");
        for start in 0..7 {
            for end in start..=7 {
                let mut block = vec![f32::NAN; (end - start) * 6];
                evaluator.read(start..end, &mut block).expect("reads");
                assert_eq!(block, wanted[start..end].concat());
            }
        }
    }

    #[test]
    fn vectors_join_with_constants() {
        let recipe = Recipe::Concat(vec![Recipe::tensor("v").rows(1, 2), Recipe::Constant(vec![8.0, 9.0])]);
        let source = source();
        let mut out = [0.0; 3];
        Evaluator::new(&source, &recipe, "w", &[4]).expect("fits").read(1..4, &mut out).expect("reads");
        assert_eq!(out, [tensor("v", 4, 1)[2][0], 8.0, 9.0]);
    }

    #[test]
    fn an_addend_is_added_to_every_element_and_block() {
        let recipe =
            Recipe::Concat(vec![Recipe::tensor("v").plus(1.0).rows(1, 3), Recipe::Constant(vec![9.0])]).plus(-0.5);
        let source = source();
        let mut out = [0.0; 3];
        Evaluator::new(&source, &recipe, "w", &[4]).expect("fits").read(1..4, &mut out).expect("reads");
        let v = tensor("v", 4, 1);
        assert_eq!(out, [v[2][0] + 1.0 - 0.5, v[3][0] + 1.0 - 0.5, 8.5]);
        let mut code = [0u8];
        let constant = Recipe::Constant(vec![2.0]).plus(1.0);
        Evaluator::new(&source, &constant, "w", &[1]).expect("fits").read(0..1, &mut code).expect("reads");
        assert_eq!(e4m3::decode(code[0]), 3.0);
    }

    #[test]
    fn recipes_that_do_not_make_the_shape_are_refused_by_name() {
        let source = source();
        let refused = |recipe: Recipe, shape: &[usize], culprit: &str| {
            let error = Evaluator::new(&source, &recipe, "w", shape).err().expect("refused");
            assert!(error.to_string().contains(culprit), "{error}");
        };
        refused(Recipe::tensor("a"), &[7, 5], "`w`");
        refused(Recipe::tensor("missing"), &[1], "`missing`");
        refused(Recipe::tensor("a").rows(4, usize::MAX), &[5, 7], "rows beyond 5");
        refused(Recipe::Concat(vec![Recipe::tensor("a"), Recipe::tensor("b")]), &[12, 7], "differ in columns");
    }
}
