//! Checkpoint tensors as a family asks for them: by name and expected shape, with an optional prefix.

use std::cell::RefCell;

use crate::error::{Error, Result};
use crate::network::{Graph, Recipe, WeightId};

/// What a checkpoint says of its tensors.
pub trait TensorIndex {
    /// Shape of the tensor `name`; `None` when there is none.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;
}

impl<F: Fn(&str) -> Option<Vec<usize>>> TensorIndex for F {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self(name)
    }
}

/// Names with shapes, in the order asked for.
pub(super) type Wanted = RefCell<Vec<(String, Vec<usize>)>>;

enum Source<'a> {
    Checkpoint(&'a dyn TensorIndex),
    /// There is no checkpoint: every wish is noted and granted.
    Wishes(&'a Wanted),
}

/// The tensors of one checkpoint, whose body may be stored under a prefix (`model.`) or without it.
pub(super) struct Tensors<'a> {
    source: Source<'a>,
    prefix: &'static str,
}

impl<'a> Tensors<'a> {
    /// Tensors of `index`, with `prefix` where `probe` stands under it.
    pub fn of(index: &'a dyn TensorIndex, prefix: &'static str, probe: &str) -> Self {
        let bare = index.shape(&format!("{prefix}{probe}")).is_none() && index.shape(probe).is_some();
        Self { source: Source::Checkpoint(index), prefix: if bare { "" } else { prefix } }
    }

    /// Notes what is asked for in `wanted` instead of looking it up.
    pub fn noting(wanted: &'a Wanted, prefix: &'static str) -> Self {
        Self { source: Source::Wishes(wanted), prefix }
    }

    /// The tensor `name` of the model's body.
    ///
    /// # Errors
    /// `InvalidCheckpoint` naming the tensor, when it is missing or has another shape.
    pub fn body(&self, name: &str, shape: &[usize]) -> Result<Recipe> {
        self.top(&format!("{}{name}", self.prefix), shape)
    }

    /// The tensor `name`, which stands outside the body.
    ///
    /// # Errors
    /// As [`Tensors::body`].
    pub fn top(&self, name: &str, shape: &[usize]) -> Result<Recipe> {
        match self.source {
            Source::Checkpoint(index) => match index.shape(name) {
                Some(found) if found == shape => {}
                Some(found) => return Err(misfit(name, format!("has shape {found:?} where {shape:?} is needed"))),
                None => return Err(misfit(name, format!("is missing; shape {shape:?} is needed"))),
            },
            Source::Wishes(wanted) => {
                let mut wanted = wanted.borrow_mut();
                if !wanted.iter().any(|(known, _)| known == name) {
                    wanted.push((name.to_string(), shape.to_vec()));
                }
            }
        }
        Ok(Recipe::tensor(name))
    }

    /// The body's tensor `name` as a weight of that name.
    ///
    /// # Errors
    /// As [`Tensors::body`].
    pub fn weight(&self, graph: &mut Graph, name: &str, shape: &[usize]) -> Result<WeightId> {
        let recipe = self.body(name, shape)?;
        Ok(graph.weight(name, shape, recipe))
    }
}

fn misfit(name: &str, why: String) -> Error {
    Error::InvalidCheckpoint { what: format!("tensor `{name}`"), why }
}
