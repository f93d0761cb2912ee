//! What clients do next: the seed's manners, act by act.

use std::collections::BTreeMap;

use ringroom::ids::{Key, ShardId};
use ringroom::reactor::Doing;
use ringroom::ring::fake::Stage;

use super::memory::Memory;
use super::session::{Phase, Reading, Session};
use super::world::{Due, World};

/// Who is held to a rate waits for answers before he asks for more.
const ASKED_MAX: usize = 10;

impl World {
    pub(super) fn connect(&mut self) {
        let memory = self.client();
        self.arrive(memory);
    }

    fn arrive(&mut self, memory: Memory) {
        let connection = self.open_connection();
        let index = self.add_session(connection, memory);
        self.greet(index);
        self.next_act(index);
    }

    /// Somebody who says nothing yet.
    pub(super) fn connect_only(&mut self) {
        let memory = self.client();
        let connection = self.open_connection();
        self.add_session(connection, memory);
    }

    /// Somebody who was here before and comes back, or somebody new.
    fn client(&mut self) -> Memory {
        if !self.memories.is_empty() && self.random.percent(70) {
            let place = self.random.index(self.memories.len());
            return self.memories.swap_remove(place);
        }
        let user = format!("u{}", self.random.below(self.plan.users));
        let device = (self.plan.manners.devices && self.random.percent(50)).then(|| format!("d{}", self.random.below(2)));
        Memory { user, device, stands: BTreeMap::new(), unsent: Vec::new() }
    }

    pub(super) fn greet(&mut self, index: usize) {
        let silent = self.random.below(1_000) < self.plan.manners.silences * 4;
        let rude = self.random.below(1_000) < self.plan.manners.garbage;
        if silent {
            let (mut stage, session) = self.stage_and_session(index);
            session.sins.silent = true;
            session.stop_talking = true;
            if stage.random.percent(50) {
                let hello = session.hello(&mut stage);
                let cut = self.random.size(1, hello.len() - 1);
                self.write(index, &hello[..cut]);
            }
            return;
        }
        if rude {
            let bytes = self.sessions[index].garbage(&mut self.random);
            self.write(index, &bytes);
            return;
        }
        let (mut stage, session) = self.stage_and_session(index);
        if stage.random.percent(80) {
            session.resume_inbox(&mut stage);
        }
        let mut bytes = session.hello(&mut stage);
        for room in session.rooms_known() {
            if stage.random.percent(70) {
                bytes.extend(session.join_room(&mut stage, room));
            }
        }
        while stage.random.percent(80)
            && let Some(again) = session.repeat(&mut stage, false)
        {
            bytes.extend(again);
        }
        if stage.random.percent(40) {
            bytes.extend(session.join(&mut stage));
        }
        if stage.random.percent(30) {
            bytes.extend(session.send(&mut stage, 10));
        }
        self.deliver(index, bytes);
    }

    /// Writes all of it, or a part now and the rest with the next act.
    fn deliver(&mut self, index: usize, bytes: Vec<u8>) {
        if bytes.len() > 1 && self.random.percent(10) {
            let cut = self.random.size(1, bytes.len() - 1);
            self.write(index, &bytes[..cut]);
            self.sessions[index].unwritten = bytes[cut..].to_vec();
        } else {
            self.write(index, &bytes);
        }
    }

    fn next_act(&mut self, index: usize) {
        let at_ns = self.kernel.now_ns() + 1 + self.random.below(2 * self.plan.pause_ns);
        self.agenda.insert((at_ns, Due::Act(index)));
    }

    pub(super) fn act(&mut self, index: usize) {
        let session = &mut self.sessions[index];
        if session.is_over() {
            return;
        }
        let rest = std::mem::take(&mut session.unwritten);
        let patient = self.plan.is_rated() && session.asked.len() >= ASKED_MAX;
        let done = patient || session.stop_talking || session.phase == Phase::Farewell;
        if !rest.is_empty() && !session.sins.silent {
            self.write(index, &rest);
        } else if !done && !self.misbehave(index) {
            self.chat(index);
        }
        if !self.sessions[index].is_over() {
            self.next_act(index);
        }
    }

    /// One of the seed's bad manners, or none.
    fn misbehave(&mut self, index: usize) -> bool {
        let manners = self.plan.manners.clone();
        let mut die = self.random.below(1_000);
        let mut falls = |weight: u64| {
            let hit = die < weight;
            die = if hit { u64::MAX } else { die - weight };
            hit
        };
        if falls(manners.garbage) {
            let bytes = self.sessions[index].garbage(&mut self.random);
            self.deliver(index, bytes);
        } else if falls(manners.bad_frames) {
            let bytes = self.sessions[index].bad_frame(&mut self.random);
            self.write(index, &bytes);
        } else if falls(manners.resets) {
            self.reset(index);
        } else if falls(manners.half_closes) {
            self.half_close(index);
        } else if falls(manners.closes) {
            self.close(index);
        } else if falls(manners.byes) {
            let bytes = self.sessions[index].say_bye();
            self.write(index, &bytes);
        } else if falls(manners.stops) {
            self.stop_reading(index);
        } else if falls(manners.stops) {
            self.sessions[index].sins.slow = true;
            self.sessions[index].reading = Reading::Slow(self.random.size(1, 3_000));
        } else if falls(manners.stops_for_ever) {
            self.sessions[index].sins.slow = true;
            self.sessions[index].reading = Reading::Never;
        } else if falls(manners.silences) {
            let (mut stage, session) = self.stage_and_session(index);
            let bytes = session.ask(&mut stage);
            session.sins.silent = true;
            session.stop_talking = true;
            let cut = self.random.size(1, bytes.len() - 1);
            self.write(index, &bytes[..cut]);
        } else {
            return false;
        }
        true
    }

    /// A bad turn for somebody who is in a short stage, or in the middle of something: by chance alone those would hardly ever be hit.
    pub(super) fn aim(&mut self) {
        if self.random.percent(25) {
            return self.ask_without_reading();
        }
        let target = if self.random.percent(40) { self.in_a_short_stage() } else { self.in_the_middle() };
        let Some(index) = target else { return };
        let manners = &self.plan.manners;
        match self.random.below(6) {
            0 if manners.resets > 0 => self.reset(index),
            1 if manners.half_closes > 0 => self.half_close(index),
            2 if manners.closes > 0 => self.close(index),
            3 if self.kernel.stage(self.sessions[index].connection) == Stage::Closing => self.write(index, &[0; 100]),
            4 if manners.devices => self.replace(index),
            5 if manners.stops > 0 => self.stop_reading(index),
            _ => {}
        }
    }

    /// Somebody who does not read asks for more.
    fn ask_without_reading(&mut self) {
        let deaf = |session: &Session| {
            let stopped = matches!(session.reading, Reading::StoppedUntil(_) | Reading::Never);
            stopped && session.phase == Phase::Open && !session.stop_talking && session.unwritten.is_empty()
        };
        let recent = self.sessions.len().saturating_sub(400)..self.sessions.len();
        let targets: Vec<usize> = recent.filter(|index| deaf(&self.sessions[*index])).collect();
        if targets.is_empty() {
            return;
        }
        let index = *self.random.pick(&targets);
        let (mut stage, session) = self.stage_and_session(index);
        let renews = stage.plan.verifier.is_some() && stage.random.percent(50);
        let mut bytes = if renews { session.second_hello(&mut stage) } else { session.join(&mut stage) };
        if renews && !session.stop_talking && stage.random.percent(50) {
            // It waits behind the verdict.
            bytes.extend(session.send(&mut stage, 40_000));
        }
        self.write(index, &bytes);
    }

    /// Some show a fresh token while a drain begins.
    pub(super) fn renew_some(&mut self, count: usize) {
        let open = |session: &Session| session.phase == Phase::Open && !session.stop_talking && session.unwritten.is_empty();
        let targets: Vec<usize> = (0..self.sessions.len()).filter(|index| open(&self.sessions[*index])).take(count).collect();
        for index in targets {
            if self.plan.verifier.is_some() {
                let (mut stage, session) = self.stage_and_session(index);
                let bytes = session.second_hello(&mut stage);
                self.write(index, &bytes);
            }
        }
    }

    fn in_a_short_stage(&mut self) -> Option<usize> {
        let short = |stage| matches!(stage, Stage::Moving | Stage::Cancelling | Stage::Closing | Stage::Handshake);
        let open = |index: &usize| !self.sessions[*index].is_over() && short(self.kernel.stage(self.sessions[*index].connection));
        let recent = self.sessions.len().saturating_sub(400)..self.sessions.len();
        let targets: Vec<usize> = recent.filter(open).collect();
        if targets.is_empty() { None } else { Some(*self.random.pick(&targets)) }
    }

    /// Somebody whose request waits: the rarer the reason, the likelier.
    fn in_the_middle(&mut self) -> Option<usize> {
        let shards = (0..self.plan.shards).map(ShardId);
        let all: Vec<(ShardId, Key, Doing)> =
            shards.flat_map(|shard| self.watched[shard.index()].busy().map(move |(key, doing)| (shard, key, doing))).collect();
        let rare = |doing: &Doing| doing.held || doing.renewing || doing.out_of_tokens || doing.blocked || doing.not_reading;
        let rarest: Vec<(ShardId, Key, Doing)> = all.iter().filter(|(.., doing)| rare(doing)).copied().collect();
        let some = if rarest.is_empty() { all } else { rarest };
        if some.is_empty() {
            return None;
        }
        let (shard, key, _) = *self.random.pick(&some);
        self.session_at(shard, key).filter(|index| !self.sessions[*index].is_over())
    }

    /// The same device logs in once more.
    fn replace(&mut self, index: usize) {
        let session = &self.sessions[index];
        if session.device.is_none() || session.phase != Phase::Open {
            return;
        }
        let memory = session.memory();
        self.arrive(memory);
    }

    fn stop_reading(&mut self, index: usize) {
        let until_ns = self.kernel.now_ns() + self.random.below(15_000_000_000);
        self.sessions[index].sins.slow = true;
        self.sessions[index].reading = Reading::StoppedUntil(until_ns);
        self.agenda.insert((until_ns, Due::Read(index)));
    }

    fn chat(&mut self, index: usize) {
        let large = self.random.below(1_000) < self.plan.manners.large_bodies;
        let body_bytes = if large { self.random.size(2_000, 60_000) } else { self.random.size(0, 200) };
        let count = if self.random.percent(15) { self.random.size(2, 8) } else { 1 };
        let (mut stage, session) = self.stage_and_session(index);
        let mut bytes = Vec::new();
        for place in 0..count {
            let body_bytes = if place == 0 { body_bytes } else { 10 };
            if stage.random.percent(10) {
                let sure = stage.random.percent(40);
                bytes.extend(session.repeat(&mut stage, sure).unwrap_or_default());
            }
            bytes.extend(match stage.random.below(100) {
                0..18 => session.join(&mut stage),
                18..25 => session.leave(&mut stage),
                25..33 => session.ask(&mut stage),
                33..35 if stage.plan.verifier.is_some() => session.second_hello(&mut stage),
                33..34 => session.second_hello(&mut stage),
                _ => session.send(&mut stage, body_bytes),
            });
            if session.stop_talking {
                break;
            }
        }
        self.deliver(index, bytes);
    }
}
