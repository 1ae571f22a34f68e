//! The controller over a live client.

use std::time::{Duration, Instant};

use narrows_link::adapt::{Controller, Decision, Settings};
use narrows_link::{Answer, Call, Client, Error, Origin};

use super::ways::Way;
use crate::failure::{Failure, Result};

/// From one ping on the idle link to the next.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// Chooses the way of each input, and learns from what became of it.
pub struct Adaptive {
    controller: Controller,
    begun: Instant,
    frames: u64,
    /// The server answered what was asked last.
    is_there: bool,
    pinged: Option<Instant>,
}

impl Adaptive {
    /// A controller over the ways' operating points; none without a deadline for it.
    pub fn new(deadline: Option<Duration>, ways: &[Way]) -> Result<Option<Self>> {
        let Some(deadline) = deadline else { return Ok(None) };
        let points = ways.iter().filter_map(|way| way.point).collect();
        let controller = Controller::new(points, Settings::deadline(deadline))
            .map_err(|error| Failure::link("cannot choose among these operating points", &error))?;
        Ok(Some(Self { controller, begun: Instant::now(), frames: 0, is_there: true, pinged: None }))
    }

    /// Measure the round trip, if that is due and the link idle and there.
    pub fn listen(&mut self, client: &mut Client) {
        let is_due = self.pinged.is_none_or(|pinged| pinged.elapsed() > PING_INTERVAL);
        if !(is_due && self.is_there && client.is_connected()) {
            return;
        }
        self.pinged = Some(Instant::now());
        match client.ping() {
            Ok(round_trip) => self.controller.round_trip(self.begun.elapsed(), round_trip),
            Err(_) => self.is_there = false,
        }
    }

    /// The way to send an input that is there now; `None` if none has a chance.
    pub fn decide(&mut self) -> Option<usize> {
        match self.controller.decide(self.begun.elapsed()) {
            Decision::Send(way) => Some(way),
            Decision::Hold => None,
        }
    }

    /// Make a request, and tell the controller what became of it.
    pub fn call(&mut self, client: &mut Client, call: Call<'_>) -> Result<Answer, Error> {
        self.frames += 1;
        let bytes = call.payload.len() as u64;
        self.controller.sent(self.begun.elapsed(), self.frames, bytes);
        let answered = client.call(call);
        let now = self.begun.elapsed();
        self.is_there = matches!(&answered, Ok(answer) if answer.record.origin == Origin::Server);
        match &answered {
            Ok(Answer { record, .. }) if self.is_there => {
                let server = record.queue + record.decode + record.tail;
                self.controller.answered(now, self.frames, server);
            }
            _ => self.controller.lost(now, self.frames),
        }
        answered
    }
}
