//! Responses of one request that its client has not taken yet. Bounded: beyond the limit news joins what waits already.

use std::collections::VecDeque;

use crate::error::{Error, Result};
use crate::executor::output::Delta;
use crate::executor::{FinishReason, RequestId, Response};
use crate::types::heap;

/// What a client receives responses with. Called on the delivery thread; dropped once, after the last response.
pub type Callback = Box<dyn FnMut(Response) + Send>;

/// How the responses reach their client.
pub(super) enum Receiver {
    /// They are awaited.
    Pull,
    /// They are handed to a callback; `None` while it runs.
    Callback(Option<Callback>),
    /// The callback failed: they are dropped.
    Nobody,
}

/// The waiting responses of one request.
pub(super) struct Mailbox {
    pub(super) receiver: Receiver,
    /// A cancellation is on its way to the loop.
    pub(super) cancelled: bool,
    responses: VecDeque<Response>,
    limit: usize,
    /// Kept for a delta and an end of each sequence.
    places: usize,
    /// The last response is in, or was taken.
    complete: bool,
}

impl Mailbox {
    /// Places that a request of `sequences` sequences cannot do without: for a delta and an end of each. It gives as many
    /// responses in one step at most.
    pub(super) fn places(sequences: u32) -> usize {
        2 * sequences as usize
    }

    /// A mailbox with [`places`](Self::places) that keeps about `limit` responses.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub(super) fn new(receiver: Receiver, limit: usize, places: usize) -> Result<Self> {
        let responses = heap::deque(places, "responses")?;
        Ok(Self { receiver, cancelled: false, responses, limit, places, complete: false })
    }

    /// The places of a request that goes on.
    pub(super) fn places_in_use(&self) -> usize {
        if self.complete { 0 } else { self.places }
    }

    /// Whether the request has ended for the executor.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether the request has ended and nobody waits for what it said.
    pub(super) fn is_finished(&self) -> bool {
        self.complete && self.responses.is_empty()
    }

    /// Whether there is something to take.
    pub(super) fn has_news(&self) -> bool {
        !self.responses.is_empty()
    }

    /// Whether a callback is ready to be called with something.
    pub(super) fn calls(&self) -> bool {
        self.has_news() && matches!(self.receiver, Receiver::Callback(Some(_)))
    }

    /// Adds a response. When the mailbox is full a delta joins the waiting one of its sequence; finals never do, so that
    /// there are at most `limit` responses and one more per sequence. A lack of memory makes a mailbox full.
    ///
    /// # Errors
    /// `OutOfMemory` when the delta cannot be kept.
    pub(super) fn put(&mut self, response: Response) -> Result<()> {
        if self.complete {
            return Ok(());
        }
        self.complete = response.last;
        if matches!(self.receiver, Receiver::Nobody) {
            return Ok(());
        }
        let full = response.finish.is_none() && (self.responses.len() >= self.limit || !self.has_room());
        let waiting = self.responses.iter_mut().rev().find(|r| full && r.sequence == response.sequence);
        match waiting {
            Some(waiting) => return waiting.join(&response),
            None => self.responses.push_back(response),
        }
        Ok(())
    }

    /// Whether there is a place that is not kept.
    fn has_room(&mut self) -> bool {
        self.responses.try_reserve(self.places + 1).is_ok()
    }

    /// Ends the request, which cannot be heard out: what waits is dropped.
    pub(super) fn fail(&mut self, id: RequestId, error: Error) {
        self.responses.clear();
        if !matches!(self.receiver, Receiver::Nobody) {
            self.responses.push_back(Response::ending(id, FinishReason::Error, Some(error)));
        }
        self.complete = true;
    }

    /// Takes up to `most` responses, oldest first, and leaves their memory in `blanks`.
    ///
    /// # Errors
    /// `OutOfMemory`; nothing was taken then.
    pub(super) fn take(&mut self, most: usize, blanks: &mut Vec<Delta>, into: &mut Vec<Response>) -> Result<()> {
        let count = self.responses.len().min(most);
        heap::reserve(into, count, "responses")?;
        into.extend(self.responses.drain(..count).map(|response| response.deliver(blanks)));
        Ok(())
    }

    /// Takes the callback and the next response that it is to be called with, if there is one and it does not run.
    pub(super) fn begin_call(&mut self, blanks: &mut Vec<Delta>) -> Option<(Callback, Response)> {
        let Receiver::Callback(callback) = &mut self.receiver else { return None };
        if self.responses.is_empty() {
            return None;
        }
        Some((callback.take()?, self.responses.pop_front()?.deliver(blanks)))
    }

    /// Drops what waits and what comes.
    pub(super) fn mute(&mut self) {
        self.receiver = Receiver::Nobody;
        self.responses.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(sequence: u32, token: u32) -> Response {
        let (text, tokens) = (token.to_string(), vec![token]);
        Response { sequence, text, tokens, finish: None, last: false, ..end(sequence, false) }
    }

    fn end(sequence: u32, last: bool) -> Response {
        Response { sequence, last, ..Response::ending(RequestId(1), FinishReason::Length, None) }
    }

    #[test]
    fn a_slow_client_gets_everything_in_few_pieces() {
        let mut mailbox = Mailbox::new(Receiver::Pull, 2, Mailbox::places(3)).unwrap();
        (0..100).for_each(|token| mailbox.put(delta(token % 3, token)).unwrap());
        (0..3).for_each(|sequence| mailbox.put(end(sequence, sequence == 2)).unwrap());
        let mut all = Vec::new();
        mailbox.take(usize::MAX, &mut Vec::new(), &mut all).unwrap();
        assert_eq!(all.len(), 2 + 1 + 3);
        for sequence in 0..3 {
            let ours = all.iter().filter(|r| r.sequence == sequence);
            let (tokens, text): (Vec<_>, Vec<_>) = ours.map(|r| (r.tokens.clone(), r.text.clone())).unzip();
            let expected: Vec<u32> = (0..100).filter(|t| t % 3 == sequence).collect();
            assert_eq!(tokens.concat(), expected);
            assert_eq!(text.concat(), expected.iter().map(u32::to_string).collect::<String>());
        }
        assert!(all.last().unwrap().last && mailbox.is_finished());
    }

    #[test]
    fn a_muted_mailbox_still_completes() {
        let mut mailbox = Mailbox::new(Receiver::Callback(None), 2, Mailbox::places(1)).unwrap();
        mailbox.put(delta(0, 1)).unwrap();
        mailbox.mute();
        mailbox.put(end(0, true)).unwrap();
        assert!(mailbox.is_finished());
    }
}
