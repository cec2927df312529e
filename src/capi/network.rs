//! The network of a checkpoint: the graph that the compiler starts from, and what its passes make of it, to look at.

use std::ffi::c_char;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::argument::{TEXT, buffer, name, names, output};
use super::handle::{self, Handle};
use super::panic::boundary;
use super::status::trtllm_status;
use crate::builder::{self, Source};
use crate::error::Result;
use crate::network::Graph;
use crate::passes::{self, PassSet};

/// A network (handle).
pub struct trtllm_network {
    _private: (),
}

impl Handle for trtllm_network {
    type Object = Mutex<Graph>;
    const KIND: u8 = 6;
    const NAME: &'static str = "trtllm_network";
}

/// Creates the network of a checkpoint: a folder, or the path of its `config.json`. Weights are not read.
///
/// Ownership: borrows `checkpoint_path`; returns an owned handle. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_network_from_checkpoint(
    checkpoint_path: *const c_char,
    network: *mut *mut trtllm_network,
) -> trtllm_status {
    boundary("trtllm_network_from_checkpoint", || {
        // SAFETY: as the C contract says.
        let (path, place) = unsafe { (name(checkpoint_path, "checkpoint_path")?, output(network, "network")?) };
        place.write(handle::insert(Arc::new(Mutex::new(graph(Path::new(path))?)))?);
        Ok(())
    })
}

/// Destroys a network; NULL is fine.
///
/// Ownership: takes `network`. Thread safety: safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_network_destroy(network: *mut trtllm_network) -> trtllm_status {
    boundary("trtllm_network_destroy", || handle::remove(network, "network").map(drop))
}

/// Runs the compiler's passes on the network, except those named in `disabled_passes`.
///
/// `disabled_passes` may be NULL when `disabled_pass_count` is 0. A failure leaves the network as it was.
/// Ownership: borrows its arguments. Thread safety: safe; calls on one network exclude each other.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_network_run_passes(
    network: *mut trtllm_network,
    disabled_passes: *const *const c_char,
    disabled_pass_count: usize,
) -> trtllm_status {
    boundary("trtllm_network_run_passes", || {
        let network = handle::get(network, "network")?;
        // SAFETY: as the C contract says.
        let disabled = unsafe { names(disabled_passes, disabled_pass_count, "disabled_passes") }?;
        let set = disabled.iter().try_fold(PassSet::all(), |set, name| set.with(name, false))?;
        let mut graph = network.lock();
        let mut rewritten = graph.clone();
        passes::run(&mut rewritten, set)?;
        *graph = rewritten;
        Ok(())
    })
}

/// The network as text, one node a line.
///
/// Ownership: copies the text and a NUL into `buffer`, see "Results of unknown size" in trtllm.h. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_network_text(
    network: *const trtllm_network,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
) -> trtllm_status {
    boundary("trtllm_network_text", || {
        let network = handle::get(network, "network")?;
        // SAFETY: as the C contract says.
        unsafe { self::buffer(buffer, capacity, length, TEXT) }?.write_text(&network.lock().text())
    })
}

/// The network in the DOT language of Graphviz.
///
/// Ownership: copies the text and a NUL into `buffer`, see "Results of unknown size" in trtllm.h. Thread safety: safe.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_network_dot(
    network: *const trtllm_network,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
) -> trtllm_status {
    boundary("trtllm_network_dot", || {
        let network = handle::get(network, "network")?;
        // SAFETY: as the C contract says.
        unsafe { self::buffer(buffer, capacity, length, TEXT) }?.write_text(&network.lock().dot())
    })
}

/// The graph of a folder, or of a lone `config.json`, for which a checkpoint of the right shape is imagined.
fn graph(path: &Path) -> Result<Graph> {
    let source = match path.is_dir() {
        true => Source::Checkpoint(path.to_path_buf()),
        false => Source::Dummy { config: path.to_path_buf(), seed: 0 },
    };
    builder::network(&source)
}
