//! The three files in which threads meet, compiled once more on shuttle's primitives, and scenarios that run under many
//! schedules of its making: random ones, and ones with few preemptions at random places. What waits for ever, is lost or
//! comes twice fails, with the schedule that leads there.
#![allow(dead_code)] // The scenarios use a part of what the executor offers.

#[path = "../exchange.rs"]
#[allow(clippy::duplicate_mod)] // That is the point.
mod exchange;
mod scenarios;
#[path = "../service.rs"]
#[allow(clippy::duplicate_mod)]
mod service;
mod sync;
#[path = "../threads.rs"]
#[allow(clippy::duplicate_mod)]
mod threads;
