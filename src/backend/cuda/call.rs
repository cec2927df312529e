//! A kernel call before it has addresses: what a builder compiles and a program binds.

use super::driver::MapElement;
use super::kernel::KernelSpec;
use super::matmul::MatmulSpec;
use super::work::Operand;

/// Which number of rows a call runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    Tokens,
    LogitRows,
    /// Leading rows of one token each.
    DecodeRows,
    /// Query tiles of all other rows.
    Tiles,
}

/// Blocks of a launch over `n` rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grid {
    Fixed([u32; 3]),
    /// `(ceil(n / per), y, 1)`
    X {
        per: u32,
        y: u32,
    },
    /// `(ceil(n * each / 256), 1, 1)`
    Threads {
        each: u32,
    },
    /// `(x, n, 1)`
    Rows {
        x: u32,
    },
    /// `(x, ceil(n / per), 1)`
    Y {
        x: u32,
        per: u32,
    },
    /// `(x, y, n)`
    Z {
        x: u32,
        y: u32,
    },
    /// As many tiles as there are, `ceil(n / per)` rounded up to clusters times `tiles`, at most `most`.
    Persistent {
        per: u32,
        cluster: u32,
        tiles: u32,
        most: u32,
    },
}

impl Grid {
    /// Blocks for `n` rows.
    pub(super) fn of(self, n: u32) -> [u32; 3] {
        match self {
            Grid::Fixed(grid) => grid,
            Grid::X { per, y } => [n.div_ceil(per), y, 1],
            Grid::Threads { each } => [(n * each).div_ceil(256), 1, 1],
            Grid::Rows { x } => [x, n, 1],
            Grid::Y { x, per } => [x, n.div_ceil(per), 1],
            Grid::Z { x, y } => [x, y, n],
            Grid::Persistent { per, cluster, tiles, most } => {
                [(n.div_ceil(per).next_multiple_of(cluster) * tiles).min(most), 1, 1]
            }
        }
    }
}

/// An array of the step's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Input {
    Tokens,
    Positions,
    LogitRows,
    Tiles,
    Samples,
    Adjustments,
    Tables,
    /// Of a KV group.
    Rows(usize),
    /// Of a KV group.
    Slots(usize),
}

/// Memory that all calls of a program share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Shared {
    /// Partial results on their way to the block that adds them up.
    Partial,
    /// Arrivals at such a block; zero between launches.
    Counters,
    /// Sampled token by slot.
    Sampled,
    /// What sampling gave, by row of logits.
    Results,
    /// Rows of logits after their adjustments.
    Processed,
    /// What sampling found in slices of rows.
    Slices,
    /// Blocks of a row that have come to an end; zero between launches.
    Arrived,
}

/// One argument.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Arg {
    Null,
    U32(u32),
    /// The number of rows.
    Count(Count),
    Buffer(Operand),
    Weight(usize),
    /// Scales of an e4m3 weight.
    Scale(usize),
    /// The start of a layer in a group's pool.
    Cache {
        group: usize,
        layer: usize,
    },
    Input(Input),
    Shared(Shared),
    BufferMap {
        of: Operand,
        element: MapElement,
        box_rows: usize,
        box_columns: usize,
    },
    WeightMap {
        of: usize,
        element: MapElement,
        box_rows: usize,
        box_columns: usize,
    },
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Code {
    Kernel(KernelSpec),
    /// A matrix product of the vendor's library: its arguments are the addresses of
    /// [`MatmulOperands`](super::matmul::MatmulOperands) in their order, and it has no grid.
    Product(MatmulSpec),
}

/// One kernel with its launch shape.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    pub(super) code: Code,
    pub(super) block: u32,
    pub(super) shared: u32,
    pub(super) cluster: u32,
    pub(super) grid: Grid,
    pub(super) count: Count,
    pub(super) args: Vec<Arg>,
    /// Bytes of [`Shared::Partial`] and words of [`Shared::Counters`] for the largest row count.
    pub(super) partial_bytes: usize,
    pub(super) counters: usize,
    /// Left out of steps whose rows all have one token.
    pub(super) only_with_tiles: bool,
}

impl Call {
    pub(super) fn new(spec: KernelSpec, block: u32, grid: Grid, count: Count, args: Vec<Arg>) -> Self {
        Self {
            code: Code::Kernel(spec),
            block,
            shared: 0,
            cluster: 1,
            grid,
            count,
            args,
            partial_bytes: 0,
            counters: 0,
            only_with_tiles: false,
        }
    }

    /// A product, which works in so many bytes of [`Shared::Partial`] as its spec says.
    pub(super) fn product(spec: MatmulSpec, count: Count, args: Vec<Arg>) -> Self {
        let kernel = Self::new(KernelSpec::new("", ""), 0, Grid::Fixed([0; 3]), count, args);
        Self { code: Code::Product(spec), ..kernel.split(spec.workspace_bytes, 0) }
    }

    /// The kernel's specification; a product has none.
    pub(super) fn spec(&self) -> Option<&KernelSpec> {
        match &self.code {
            Code::Kernel(spec) => Some(spec),
            Code::Product(_) => None,
        }
    }

    pub(super) fn shared(mut self, bytes: u32) -> Self {
        self.shared = bytes;
        self
    }

    pub(super) fn split(mut self, partial_bytes: usize, counters: usize) -> Self {
        (self.partial_bytes, self.counters) = (partial_bytes, counters);
        self
    }
}
