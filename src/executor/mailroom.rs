//! The mailboxes of all requests: who gets what, and whose turn it is.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use crate::error::{Error, Result};
use crate::executor::mailbox::{Callback, Mailbox, Receiver};
use crate::executor::output::Delta;
use crate::executor::{FinishReason, RequestId, Response};

/// A callback with what it is to be called with.
pub(super) struct Call {
    pub(super) request: RequestId,
    pub(super) callback: Callback,
    pub(super) response: Response,
}

/// A mailbox for every request whose last response was not taken.
pub(super) struct Mailroom {
    mailboxes: BTreeMap<RequestId, Mailbox>,
    /// Whose turn it was last, so that nobody starves.
    served: RequestId,
    mailbox_limit: usize,
}

impl Mailroom {
    /// Mailboxes keep about `mailbox_limit` responses each.
    pub(super) fn new(mailbox_limit: usize) -> Self {
        Self { mailboxes: BTreeMap::new(), served: RequestId(0), mailbox_limit }
    }

    pub(super) fn len(&self) -> usize {
        self.mailboxes.len()
    }

    /// The places of all requests that go on.
    pub(super) fn places(&self) -> usize {
        self.mailboxes.values().map(Mailbox::places_in_use).sum()
    }

    /// Opens the mailbox of a request.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub(super) fn open(&mut self, id: RequestId, receiver: Receiver, places: usize) -> Result<()> {
        self.mailboxes.insert(id, Mailbox::new(receiver, self.mailbox_limit, places)?);
        Ok(())
    }

    /// Marks a request as cancelled; false if it was, or has ended.
    pub(super) fn cancel(&mut self, id: RequestId) -> bool {
        let mailbox = self.mailboxes.get_mut(&id).filter(|m| !m.cancelled && !m.is_complete());
        mailbox.map(|mailbox| mailbox.cancelled = true).is_some()
    }

    /// Ends every request that has no last response.
    pub(super) fn end_all(&mut self, finish: FinishReason, error: Option<&Error>) {
        for (id, mailbox) in self.mailboxes.iter_mut().filter(|(_, mailbox)| !mailbox.is_complete()) {
            // An end has its place.
            let _ = mailbox.put(Response::ending(*id, finish, error.cloned()));
        }
        self.mailboxes.retain(|_, mailbox| !is_over(mailbox));
    }

    /// Puts a response into its mailbox.
    ///
    /// # Errors
    /// `OutOfMemory`: the request has ended with it, and is to be cancelled.
    pub(super) fn put(&mut self, response: Response) -> Result<()> {
        let id = response.request;
        let Some(mailbox) = self.mailboxes.get_mut(&id) else { return Ok(()) };
        let outcome = mailbox.put(response).map_err(|error| error.within(&format!("request {}", id.0)));
        if let Err(error) = &outcome {
            mailbox.fail(id, error.clone());
        }
        self.forget_finished(id);
        outcome
    }

    /// Takes up to `most` responses of one request, maybe none; their memory goes to `blanks`.
    pub(super) fn take_of(&mut self, id: RequestId, most: usize, blanks: &mut Vec<Delta>) -> Result<Vec<Response>> {
        let Some(mailbox) = self.mailboxes.get_mut(&id) else {
            let why = "it never existed or its last response was taken".to_string();
            return Err(Error::NotFound { what: format!("request {}", id.0), why });
        };
        if !matches!(mailbox.receiver, Receiver::Pull) {
            return Err(Error::argument("request", "its responses go to a callback"));
        }
        let mut responses = Vec::new();
        mailbox.take(most, blanks, &mut responses)?;
        self.forget_finished(id);
        Ok(responses)
    }

    /// Takes up to `most` responses of any requests without a callback, maybe none.
    pub(super) fn take_any(&mut self, most: usize, blanks: &mut Vec<Delta>) -> Result<Vec<Response>> {
        let mut responses = Vec::new();
        let awaited = |m: &Mailbox| m.has_news() && matches!(m.receiver, Receiver::Pull);
        while responses.len() < most {
            let Some(id) = self.next(awaited) else { break };
            let Some(mailbox) = self.mailboxes.get_mut(&id) else { break };
            match mailbox.take(most - responses.len(), blanks, &mut responses) {
                Err(error) if responses.is_empty() => return Err(error),
                Err(_) => break,
                Ok(()) => self.forget_finished(id),
            }
        }
        Ok(responses)
    }

    /// The next callback that has something to be called with and does not run.
    pub(super) fn next_call(&mut self, blanks: &mut Vec<Delta>) -> Option<Call> {
        let request = self.next(Mailbox::calls)?;
        let (callback, response) = self.mailboxes.get_mut(&request)?.begin_call(blanks)?;
        Some(Call { request, callback, response })
    }

    /// Puts a callback back after its call, or gives it up for good when its request is over.
    pub(super) fn return_callback(&mut self, request: RequestId, callback: Callback) -> Option<Callback> {
        match self.mailboxes.get_mut(&request).filter(|mailbox| !mailbox.is_finished()) {
            Some(mailbox) => {
                mailbox.receiver = Receiver::Callback(Some(callback));
                None
            }
            None => {
                self.mailboxes.remove(&request);
                Some(callback)
            }
        }
    }

    /// Drops what a request says from now on.
    pub(super) fn mute(&mut self, request: RequestId) {
        if let Some(mailbox) = self.mailboxes.get_mut(&request) {
            mailbox.mute();
        }
        self.forget_finished(request);
    }

    /// Drops the mailbox of a finished request, unless a running callback still has to be told so.
    fn forget_finished(&mut self, id: RequestId) {
        if self.mailboxes.get(&id).is_some_and(is_over) {
            self.mailboxes.remove(&id);
        }
    }

    /// The next mailbox, after the one served last, that is as `wanted`.
    fn next(&mut self, wanted: impl Fn(&Mailbox) -> bool) -> Option<RequestId> {
        let after = self.mailboxes.range((Excluded(self.served), Unbounded));
        let found = after.chain(self.mailboxes.range(..=self.served)).find(|(_, mailbox)| wanted(mailbox));
        let id = found.map(|(id, _)| *id)?;
        self.served = id;
        Some(id)
    }
}

/// Whether nobody will ask for a mailbox again.
fn is_over(mailbox: &Mailbox) -> bool {
    mailbox.is_finished() && !matches!(mailbox.receiver, Receiver::Callback(_))
}
