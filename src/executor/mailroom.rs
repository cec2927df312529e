//! The mailboxes of all requests: who gets what, and whose turn it is.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use crate::error::{Error, Result};
use crate::executor::mailbox::{Callback, Mailbox, Receiver};
use crate::executor::{RequestId, Response};

/// A callback with what it is to be called with.
pub(super) struct Call {
    pub(super) request: RequestId,
    pub(super) callback: Callback,
    pub(super) responses: Vec<Response>,
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

    pub(super) fn open(&mut self, id: RequestId, receiver: Receiver) {
        self.mailboxes.insert(id, Mailbox::new(receiver, self.mailbox_limit));
    }

    /// Marks a request as cancelled; false if it was, or has ended.
    pub(super) fn cancel(&mut self, id: RequestId) -> bool {
        let mailbox = self.mailboxes.get_mut(&id).filter(|m| !m.cancelled && !m.is_complete());
        mailbox.map(|mailbox| mailbox.cancelled = true).is_some()
    }

    /// Requests without their last response.
    pub(super) fn unfinished(&self) -> Vec<RequestId> {
        self.mailboxes.iter().filter(|(_, mailbox)| !mailbox.is_complete()).map(|(id, _)| *id).collect()
    }

    pub(super) fn put(&mut self, response: Response) {
        let id = response.request;
        if let Some(mailbox) = self.mailboxes.get_mut(&id) {
            mailbox.put(response);
        }
        self.forget_finished(id);
    }

    /// Takes up to `most` responses of one request, maybe none.
    pub(super) fn take_of(&mut self, id: RequestId, most: usize) -> Result<Vec<Response>> {
        let Some(mailbox) = self.mailboxes.get_mut(&id) else {
            let why = "it never existed or its last response was taken".to_string();
            return Err(Error::NotFound { what: format!("request {}", id.0), why });
        };
        if !matches!(mailbox.receiver, Receiver::Pull) {
            return Err(Error::argument("request", "its responses go to a callback"));
        }
        let responses = mailbox.take(most).collect();
        self.forget_finished(id);
        Ok(responses)
    }

    /// Takes up to `most` responses of any requests without a callback, maybe none.
    pub(super) fn take_any(&mut self, most: usize) -> Result<Vec<Response>> {
        let mut responses = Vec::new();
        let awaited = |m: &Mailbox| m.has_news() && matches!(m.receiver, Receiver::Pull);
        while responses.len() < most {
            let Some(id) = self.next(awaited) else { break };
            responses.extend(self.take_of(id, most - responses.len())?);
        }
        Ok(responses)
    }

    /// The next callback that has something to be called with and does not run.
    pub(super) fn next_call(&mut self) -> Option<Call> {
        let request = self.next(Mailbox::calls)?;
        let (callback, responses) = self.mailboxes.get_mut(&request)?.begin_call()?;
        Some(Call { request, callback, responses })
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
        let done = |m: &&Mailbox| m.is_finished() && !matches!(m.receiver, Receiver::Callback(_));
        if self.mailboxes.get(&id).filter(done).is_some() {
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
