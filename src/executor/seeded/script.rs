//! From a seed to what several clients do with one executor. Nothing here depends on the model: `tests/traces.rs` plays
//! the same scripts on a real one.

use std::ops::Range;
use std::time::Duration;

use super::{Input, LogitBias, Random, Request};

/// What the model can say and how large everything is.
pub struct World {
    /// Ordinary tokens.
    pub vocabulary: Range<u32>,
    /// A token that makes logits NaN.
    pub poison: Option<u32>,
    /// Tokens of a block.
    pub block_tokens: Range<usize>,
    /// Longest prompts, and longest outputs.
    pub most: usize,
    /// Whether there is a tokenizer that knows `a` to `t`.
    pub letters: bool,
    /// Whether the executor may be shut down in the middle.
    pub shutdowns: bool,
}

/// Limits of the executor: all of them small.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub rows: usize,
    /// Tokens of a step.
    pub tokens: usize,
    pub blocks: usize,
    pub block_tokens: usize,
    pub reuse: bool,
    /// Requests that may be unfinished or have their last response not taken.
    pub capacity: usize,
    /// Responses that wait for a slow client.
    pub pending: usize,
}

/// How a client takes what its requests say.
#[derive(Debug, Clone, Copy)]
pub enum Habit {
    /// Awaits its requests one by one, at every so-manyth step, up to so many responses.
    One { every: usize, most: usize },
    /// Awaits whatever there is, be it another client's.
    Any { every: usize, most: usize },
    /// Looks after its requests this many steps after their submission.
    Late { after: usize },
    /// Takes nothing before everything is over.
    AtTheEnd,
    /// Is called.
    Callback,
    /// Is called, and panics at this call.
    Fails { at: usize },
}

/// When a request is cancelled.
#[derive(Debug, Clone, Copy)]
pub enum Cancel {
    /// After so many steps.
    Steps(usize),
    /// As soon as its client has heard so many tokens.
    Tokens(usize),
    /// When its last response was taken.
    End,
}

#[derive(Debug, Clone)]
pub struct Order {
    /// The step before which it is submitted.
    pub at: usize,
    pub request: Request,
    pub cancel: Option<Cancel>,
}

#[derive(Debug, Clone)]
pub struct Client {
    pub habit: Habit,
    /// By the time of their submission.
    pub orders: Vec<Order>,
}

#[derive(Debug, Clone)]
pub struct Script {
    pub sizes: Sizes,
    pub clients: Vec<Client>,
    /// The executor is shut down before this step.
    pub shutdown_at: Option<usize>,
}

impl Script {
    /// The script of a seed.
    pub fn new(seed: u64, world: &World) -> Self {
        let mut author = Author { random: Random(seed), world };
        let sizes = author.sizes();
        let clients = (0..author.random.within(1..4)).map(|_| author.client(&sizes)).collect();
        let shutdown_at = (world.shutdowns && author.random.chance(10)).then(|| author.random.within(1..40));
        Self { sizes, clients, shutdown_at }
    }
}

struct Author<'a> {
    random: Random,
    world: &'a World,
}

impl Author<'_> {
    fn sizes(&mut self) -> Sizes {
        let random = &mut self.random;
        let tokens = random.within(1..self.world.most);
        Sizes {
            rows: random.within(1..6).min(tokens),
            tokens,
            blocks: random.within(3..20),
            block_tokens: random.within(self.world.block_tokens.clone()),
            reuse: random.chance(80),
            capacity: random.within(2..9),
            pending: random.within(1..6),
        }
    }

    fn client(&mut self, sizes: &Sizes) -> Client {
        let (every, most) = (self.random.within(1..6), self.random.within(1..4));
        let habit = match self.random.within(0..12) {
            0..4 => Habit::One { every, most },
            4..7 => Habit::Any { every, most },
            7 => Habit::Late { after: self.random.within(5..40) },
            8 => Habit::AtTheEnd,
            9..11 => Habit::Callback,
            _ => Habit::Fails { at: self.random.within(1..5) },
        };
        let mut orders: Vec<Order> = (0..self.random.within(1..5)).map(|_| self.order(sizes)).collect();
        orders.sort_by_key(|order| order.at);
        Client { habit, orders }
    }

    fn order(&mut self, sizes: &Sizes) -> Order {
        let request = self.request(sizes);
        let cancel = match self.random.within(0..10) {
            0 | 1 => Some(Cancel::Steps(self.random.within(0..12))),
            2 => Some(Cancel::Tokens(self.random.within(1..self.world.most / 2))),
            3 => Some(Cancel::End),
            _ => None,
        };
        Order { at: self.random.within(0..16), request, cancel }
    }

    fn request(&mut self, sizes: &Sizes) -> Request {
        let pool = sizes.blocks * sizes.block_tokens;
        let prompt = self.prompt(pool);
        let room = pool.saturating_sub(prompt.len()).clamp(1, self.world.most);
        let mut request = Request::new(Input::Tokens(prompt));
        self.sampling(&mut request, room);
        self.stops(&mut request);
        let random = &mut self.random;
        request.stream = random.chance(70);
        request.time_limit = random.chance(8).then(|| Duration::from_millis(random.within(0..25) as u64));
        request.salt = vec![random.within(0..8) as u8 / 6];
        request.return_context_logits = random.chance(12);
        request.return_generation_logits = random.chance(20);
        request
    }

    /// A beginning of one of a few texts, so that prefixes of many lengths are shared; sometimes with an end of its own,
    /// the poison in it, or more than the pool holds.
    fn prompt(&mut self, pool: usize) -> Vec<u32> {
        let most = self.world.most.min(pool * 3 / 4).max(1);
        let len = match self.random.within(0..30) {
            0 => pool + self.random.within(0..3),
            _ => self.random.within(1..most + 1),
        };
        let text = self.random.within(0..3) as u64;
        let own = if self.random.chance(40) { self.random.within(0..4).min(len) } else { 0 };
        let mut prompt: Vec<u32> = (0..len - own).map(|at| self.word(Random(text << 32 | at as u64).next())).collect();
        prompt.extend((0..own).map(|_| self.token()).collect::<Vec<u32>>());
        if let Some(poison) = self.world.poison.filter(|_| self.random.chance(5)) {
            prompt[self.random.within(0..len)] = poison;
        }
        prompt
    }

    fn word(&self, number: u64) -> u32 {
        let Range { start, end } = self.world.vocabulary;
        start + (number % u64::from(end - start)) as u32
    }

    fn token(&mut self) -> u32 {
        let number = self.random.next();
        self.word(number)
    }

    fn sampling(&mut self, request: &mut Request, room: usize) {
        let random = &mut self.random;
        let sampling = &mut request.sampling;
        sampling.max_tokens = random.within(1..room + 1) as u32;
        sampling.min_tokens = random.within(0..4).min(sampling.max_tokens as usize) as u32;
        sampling.n = if random.chance(25) { random.within(2..4) as u32 } else { 1 };
        if random.chance(50) {
            sampling.temperature = 1.0;
            sampling.seed = random.within(0..3) as u64;
            sampling.top_k = random.within(0..2) as u32 * 7;
        }
        if random.chance(30) {
            (sampling.repetition_penalty, sampling.presence_penalty) = (1.3, 0.2);
        }
        sampling.ignore_eos = random.chance(50);
        sampling.logprobs = random.chance(20).then(|| random.within(0..3) as u32);
        // Without the ban the model may choose the poison itself: that request fails, the others must not.
        if let Some(token) = self.world.poison.filter(|_| random.chance(90)) {
            sampling.logit_bias = vec![LogitBias { token, bias: f32::NEG_INFINITY }];
        }
    }

    fn stops(&mut self, request: &mut Request) {
        if self.random.chance(25) {
            let lengths = [1, 2].map(|most| self.random.within(1..most + 1));
            request.sampling.stop_sequences = lengths.map(|length| (0..length).map(|_| self.token()).collect()).into();
        }
        if self.world.letters && self.random.chance(20) {
            let letter = |random: &mut Random| char::from(b'a' + random.within(0..20) as u8);
            request.sampling.stop_strings = (0..2).map(|_| letter(&mut self.random).to_string()).collect();
            let pair = [(); 2].map(|()| letter(&mut self.random));
            request.sampling.stop_strings.push(pair.iter().collect());
        }
    }
}
