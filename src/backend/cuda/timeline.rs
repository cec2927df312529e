//! When steps begin and end on the device, told by the events that steps are waited for with: reading the times of a step
//! that is over waits for nothing.

use std::sync::Arc;
use std::time::Duration;

use super::driver::Driver;
use super::event::TimedEvent;
use crate::backend::StepTime;
use crate::error::Result;

/// Events around the steps of one stream.
pub(super) struct Timeline {
    driver: Arc<dyn Driver>,
    /// Of step `i`: number `i` modulo their count. There is one more than steps may be under way: when the oldest of them
    /// is over, the end of the step before it is still known.
    marks: Vec<Mark>,
    /// Steps that were ended, and those of them that were waited for.
    ended: usize,
    waited: usize,
}

/// Begin and end of one step.
struct Mark {
    begin: TimedEvent,
    end: TimedEvent,
}

impl Timeline {
    /// For up to `depth` steps under way.
    pub(super) fn new(driver: &Arc<dyn Driver>, depth: usize) -> Result<Self> {
        let mark = |_| Ok(Mark { begin: TimedEvent::new(driver)?, end: TimedEvent::new(driver)? });
        let marks = (0..=depth).map(mark).collect::<Result<_>>()?;
        Ok(Self { driver: Arc::clone(driver), marks, ended: 0, waited: 0 })
    }

    /// Before the first work of a step is enqueued. A step that was begun and not ended counts as never begun.
    pub(super) fn begin(&self) -> Result<()> {
        self.driver.record(self.mark(self.ended).begin.event)
    }

    /// After its last.
    pub(super) fn end(&mut self) -> Result<()> {
        self.driver.record(self.mark(self.ended).end.event)?;
        self.ended += 1;
        Ok(())
    }

    /// Waits for the end of the oldest step under way, which counts as waited for whatever comes of it.
    pub(super) fn wait(&mut self) -> Result<StepTime> {
        let step = self.waited;
        self.waited += 1;
        let Mark { begin, end } = self.mark(step);
        self.driver.wait(end.event)?;
        let idle = match step.checked_sub(1) {
            Some(before) => self.between(&self.mark(before).end, begin)?,
            None => Duration::ZERO,
        };
        Ok(StepTime { device: self.between(begin, end)?, idle })
    }

    fn mark(&self, step: usize) -> &Mark {
        &self.marks[step % self.marks.len()]
    }

    fn between(&self, from: &TimedEvent, to: &TimedEvent) -> Result<Duration> {
        let milliseconds = self.driver.elapsed(from.event, to.event)?;
        // Two marks that coincide may be told in the wrong order.
        Ok(Duration::try_from_secs_f32(milliseconds / 1e3).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Call, Counts, FakeDriver};
    use super::*;
    use crate::error::Status;

    /// The fake's clock ticks a millisecond with each record.
    fn time(device: u64, idle: u64) -> StepTime {
        StepTime { device: Duration::from_millis(device), idle: Duration::from_millis(idle) }
    }

    fn enqueue(timeline: &mut Timeline) {
        timeline.begin().unwrap();
        timeline.end().unwrap();
    }

    #[test]
    fn the_end_of_the_step_before_outlives_the_launch_of_the_next_one() {
        let fake = FakeDriver::new();
        let driver: Arc<dyn Driver> = fake.clone();
        let mut timeline = Timeline::new(&driver, 2).unwrap();
        enqueue(&mut timeline);
        enqueue(&mut timeline);
        assert_eq!(timeline.wait().unwrap(), time(1, 0));
        for _ in 0..10 {
            enqueue(&mut timeline);
            assert_eq!(timeline.wait().unwrap(), time(1, 1));
        }
        // A launch that failed half way.
        timeline.begin().unwrap();
        enqueue(&mut timeline);
        assert_eq!(timeline.wait().unwrap(), time(1, 1));
        assert_eq!(timeline.wait().unwrap(), time(1, 2));
        drop(timeline);
        assert_eq!(fake.alive(), Counts::default());
    }

    #[test]
    fn a_loss_is_told_and_the_events_are_given_back() {
        let fake = FakeDriver::new();
        let driver: Arc<dyn Driver> = fake.clone();
        let mut timeline = Timeline::new(&driver, 1).unwrap();
        fake.fail(Call::Wait, 1);
        enqueue(&mut timeline);
        assert_eq!(timeline.wait().unwrap_err().status(), Status::DeviceLost);
        drop(timeline);
        assert_eq!(fake.alive(), Counts::default());
    }
}
