//! Owned events: given back on drop.

use std::sync::Arc;

use super::driver::{Driver, Event};
use crate::error::Result;

/// An event whose time can be told.
pub(super) struct TimedEvent {
    driver: Arc<dyn Driver>,
    pub(super) event: Event,
}

impl TimedEvent {
    pub(super) fn new(driver: &Arc<dyn Driver>) -> Result<Self> {
        Ok(Self { driver: Arc::clone(driver), event: driver.event(true)? })
    }
}

impl Drop for TimedEvent {
    fn drop(&mut self) {
        self.driver.release_event(self.event);
    }
}
