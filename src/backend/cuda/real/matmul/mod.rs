//! Matrix products of the vendor's library on a real device.

use std::collections::HashMap;

use super::super::cublas::{Fault, Handle, Plan};
use super::super::driver::{Driver, Matmul};
use super::super::matmul::{MatmulOperands, MatmulSpec};
use super::RealDriver;
use crate::error::{Error, Result};

/// The library's state for this context, made at the first use, and what was prepared with it.
#[derive(Default)]
pub(super) struct Matmuls {
    handle: Option<Handle>,
    plans: HashMap<u64, Plan>,
    last_id: u64,
}

impl Matmuls {
    fn prepare(&mut self, spec: &MatmulSpec, device: &str) -> Result<Matmul> {
        let handle = match &mut self.handle {
            Some(handle) => handle,
            none => none.insert(Handle::new(device)?),
        };
        let plan = Plan::new(handle, spec, device)?;
        self.last_id += 1;
        self.plans.insert(self.last_id, plan);
        Ok(Matmul(self.last_id))
    }
}

impl RealDriver {
    pub(super) fn prepare_matmul(&self, spec: &MatmulSpec) -> Result<Matmul> {
        let _context = self.enter()?;
        self.matmuls.lock().prepare(spec, &self.label).or_else(|error| self.unless_lost(error))
    }

    /// # Safety
    /// As of [`Driver::launch_matmul`].
    pub(super) unsafe fn enqueue_matmul(&self, matmul: Matmul, operands: &MatmulOperands, rows: u32) -> Result<()> {
        let _context = self.enter()?;
        let mut matmuls = self.matmuls.lock();
        let Matmuls { handle: Some(handle), plans, .. } = &mut *matmuls else { return Err(no_matmul()) };
        let plan = plans.get_mut(&matmul.0).ok_or_else(no_matmul)?;
        operands.check(plan.spec(), rows)?;
        // The library may load a kernel, which a captured thread may do in the relaxed mode alone.
        // SAFETY: the context is current, the stream is ours and the operands were checked; their extent is the caller's.
        let launched = self.relaxed(|| unsafe { plan.launch(handle, operands, rows, self.stream.cast()) });
        let what = |fault: Fault| fault.error(&format!("{} over {rows} rows", plan.spec()), &self.label);
        launched.map_err(what).or_else(|error| self.unless_lost(error))
    }

    pub(super) fn drop_matmul(&self, matmul: Matmul) {
        self.matmuls.lock().plans.remove(&matmul.0);
    }

    /// The error, or the loss of the device if that is what the library met with: its own codes do not tell.
    fn unless_lost<T>(&self, error: Error) -> Result<T> {
        self.free_bytes()?;
        Err(error)
    }

    /// Gives back what is still alive. The state of a lost device is left to the context's end.
    pub(super) fn end_matmuls(&mut self) {
        let Matmuls { handle, .. } = std::mem::take(self.matmuls.get_mut());
        match self.enter() {
            Ok(_context) => drop(handle),
            Err(_) => std::mem::forget(handle),
        }
    }
}

fn no_matmul() -> Error {
    Error::internal("matrix product", "it was released or never prepared")
}

#[cfg(test)]
mod product;
#[cfg(test)]
mod tests;
