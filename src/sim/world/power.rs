//! Disks, power and lives: what is written when, who is cut off in the midst of what, and how a
//! replica goes on from what its disk still holds (R17).

use crate::crypto::{Identity, KeyError};
use crate::endpoint::config::ReplicaConfig;
use crate::endpoint::io::{ReplicaInput, Save};
use crate::endpoint::replica::{Application, Replica, Restart};
use crate::log::recover::Ended;
use crate::log::{Log, Position, Record};
use crate::types::{Incarnation, Micros, Now, ReplicaId, Seqno, View};

use super::super::Options;
use super::super::chance::Chance;
use super::super::network::{Happening, Place};
use super::super::scenario::{Faulty, Keys, Moment, Outage, Scenario};
use super::super::service::Service;
use super::super::store::{Disk, Remains};
use super::{EPOCH, Machine, Origin, World};

/// How long after a failed write it is tried again.
const RETRY: Micros = Micros::millis(500);

/// What a run's replicas are made of, and what is still to befall them.
#[derive(Debug)]
pub(super) struct Power {
    keys: Keys,
    options: Options,
    lives: Chance,
    chance: Chance,
    /// Those that have not occurred.
    outages: Vec<Option<Outage>>,
}

impl Power {
    pub(super) fn new(seed: u64, keys: Keys, options: Options, scenario: &Scenario) -> Self {
        let outages = scenario.disks.iter().flat_map(|disks| &disks.outages);
        Self {
            keys,
            options,
            lives: Chance::new(seed, "lives"),
            chance: Chance::new(seed, "power"),
            outages: outages.cloned().map(Some).collect(),
        }
    }
}

/// The empty disk of the replica at a place, if it has one.
pub(super) fn disk(place: Place, keys: &Keys, scenario: &Scenario) -> Option<Disk> {
    let disks = scenario.disks.as_ref()?;
    let me = scenario.identity(place)?;
    let kept = scenario.honest(place) && place != scenario.second();
    kept.then(|| Disk::new(keys.group.id, me, disks.segment))
}

/// What a replica is made of; in each of its lives the same, but for where its ids come from.
pub(super) fn config(
    me: ReplicaId,
    rng_seed: [u8; 32],
    (keys, scenario, options): (&Keys, &Scenario, Options),
) -> Result<ReplicaConfig, KeyError> {
    let (name, secret) = &keys.identities[me.index()];
    Ok(ReplicaConfig {
        group: keys.group.clone(),
        me,
        identity: Identity::generate(name, secret)?,
        group_secret: keys.group_secret,
        // Twins share a life: their peers take the sequences of both. So do the lives of a disk.
        incarnation: Incarnation(EPOCH + me.index() as u64),
        rng_seed,
        hold: scenario.hold,
        // A run ends where nobody has anything to say.
        touch: None,
        stopwatch: None,
        plant: options.plant,
    })
}

/// A life begins from a disk.
pub(super) fn begin(
    config: ReplicaConfig,
    now: Now,
    (disk, remains): (&mut Disk, Remains),
    scenario: &Scenario,
) -> Result<Replica, String> {
    let (log, syncer) = Log::durable();
    disk.begin(syncer);
    let inside = scenario.disks.as_ref().is_some_and(|disks| disks.inside);
    let restart = Restart {
        log,
        recovered: remains.recovered,
        snapshot: remains.snapshot,
        application: match inside {
            true => Application::Inside,
            false => Application::Outside,
        },
        used: !inside,
    };
    Replica::restore(config, now, restart).map_err(|error| error.to_string())
}

impl World {
    /// Puts on the calendar when power fails and disks are full.
    pub(super) fn plan_power(&mut self) {
        for (index, outage) in self.power.outages.iter().enumerate() {
            let timed = outage.as_ref().filter(|outage| outage.on.is_none());
            if let Some(outage) = timed {
                self.queue.put(outage.from, Happening::Outage(index));
            }
        }
    }

    /// Does a replica what somebody waits for to cut its power?
    pub(super) fn moment(&mut self, place: Place, now: Moment) {
        let due = |outage: &Option<Outage>| {
            let outage = outage.as_ref();
            outage.is_some_and(|outage| outage.on == Some(now) && outage.from <= self.now)
        };
        if self.healed || self.members[place].disk.is_none() {
            return;
        }
        let Some(index) = self.power.outages.iter().position(due) else {
            return;
        };
        // Of what is done all the time, not the first is meant.
        let common = matches!(now, Moment::Writing | Moment::Executing | Moment::Stable);
        if common && self.power.chance.percent(80) {
            return;
        }
        if let Some(outage) = &mut self.power.outages[index]
            && !outage.who.contains(&place)
        {
            outage.who[0] = place;
        }
        self.counts.fault(now.name());
        self.cut_power(index);
    }

    /// Some replicas lose power together.
    pub(super) fn cut_power(&mut self, index: usize) {
        let Some(outage) = self.power.outages[index].take() else {
            return;
        };
        let up = |place: &&Place| self.members[**place].up;
        let all = (0..self.scenario.quorums.n()).filter(|place| self.members[*place].up);
        if outage.who.iter().filter(up).count() == all.count() {
            self.counts.fault("power_cut_all");
            let views = self.members.iter().filter(|member| member.up);
            let views = views.filter_map(|member| match &member.machine {
                Machine::Replica(replica) if replica.is_in_view() => Some(replica.view()),
                _ => None,
            });
            let views: Vec<View> = views.collect();
            if views.iter().min() < views.iter().max() {
                self.counts.rare("cut_in_two_views");
            }
        }
        for (place, down) in outage.who.iter().zip(outage.down) {
            if self.members[*place].up {
                self.counts.fault("power_cut");
                self.stop(*place);
                self.queue.put(self.now + down, Happening::Restart(*place));
            }
        }
    }

    /// A replica crashes. It stays down, or comes back without its disk.
    pub(super) fn crash(&mut self, place: Place) {
        let back = match self.scenario.fault_at(place) {
            Some(Faulty::Crash { back, .. }) => *back,
            _ => None,
        };
        if self.members[place].up {
            self.stop(place);
            if self.healed {
                self.counts.fault("crash_after_heal");
            }
        }
        let me = self.scenario.identity(place);
        let segment = self.scenario.disks.as_ref().map(|disks| disks.segment);
        let (Some(back), Some(me), Some(segment)) = (back, me, segment) else {
            self.members[place].dead = true;
            return;
        };
        self.wrong_disks(place, me);
        self.counts.fault("disk_wiped");
        let disk = Disk::forgotten(self.power.keys.group.id, me, segment);
        self.members[place].disk = Some(disk);
        self.members[place].losses += 1;
        self.queue.put(self.now + back, Happening::Restart(place));
    }

    /// Before a replica learns, it was started with what was at hand: its own disk, which is
    /// damaged, and that of another. It must not go on from either.
    fn wrong_disks(&mut self, place: Place, me: ReplicaId) {
        let own = self.members[place].disk.as_ref().map(Disk::copy);
        if let Some(mut own) = own
            && own.recover().is_ok()
        {
            self.counts.fault("disk_damaged");
            own.damage(&mut self.power.chance);
            match own.recover() {
                Ok(_) => self.fail("recovered", format!("r{place} reads what is damaged")),
                Err(_) => self.counts.rare("log_refused"),
            }
        }
        let others = self.members.iter().enumerate();
        let other = others.filter(|(at, _)| *at != place);
        let other = other.filter_map(|(_, member)| member.disk.as_ref());
        let Some(mut disk) = other.map(Disk::copy).next() else {
            return;
        };
        let Ok(remains) = disk.recover() else {
            return;
        };
        self.counts.fault("disk_foreign");
        let now = self.clock_of(place);
        let rng_seed = self.power.lives.octets();
        let power = &self.power;
        let config = config(me, rng_seed, (&power.keys, &self.scenario, power.options));
        let Ok(config) = config else {
            return;
        };
        match begin(config, now, (&mut disk, remains), &self.scenario) {
            Ok(_) => self.fail("recovered", format!("r{place} goes on from another's log")),
            Err(_) => self.counts.rare("log_refused"),
        }
    }

    /// A replica's process ends here.
    pub(super) fn stop(&mut self, place: Place) {
        self.say(place, format_args!("crashes"));
        let member = &mut self.members[place];
        member.up = false;
        member.life += 1;
        if let (Machine::Replica(replica), Some(_)) = (&member.machine, &member.disk) {
            if !replica.is_in_view() {
                self.counts.rare("cut_between_views");
            }
            if replica.status().transfer.is_some() {
                self.counts.rare("cut_in_transfer");
            }
            if !replica.is_between_batches() {
                self.counts.rare("cut_in_execution");
            }
        }
        if let Some(disk) = &mut self.members[place].disk {
            disk.cut(&mut self.power.chance, &mut self.counts);
        }
        self.network
            .crash(self.now, place, &mut self.queue, &mut self.counts);
    }

    /// A replica goes on from its disk.
    pub(super) fn restart(&mut self, place: Place) {
        let now = self.clock_of(place);
        let member = &mut self.members[place];
        let (false, false, Some(me)) = (member.up, member.dead, self.scenario.identity(place))
        else {
            return;
        };
        let Some(mut disk) = member.disk.take() else {
            return;
        };
        let remains = match disk.recover() {
            Ok(remains) => remains,
            Err(damage) => return self.fail("recovered", format!("r{place}: {damage}")),
        };
        let reached = remains.snapshot.as_ref().map(|saved| saved.seqno);
        if reached.is_some() {
            self.counts.rare("restarted_from_snapshot");
        }
        for record in &remains.untold {
            self.is_written(place, record);
        }
        self.service_restarts(place, &remains);
        let rng_seed = self.power.lives.octets();
        let losses = self.members[place].losses;
        let power = &self.power;
        let parts = (&power.keys, &self.scenario, power.options);
        let made = config(me, rng_seed, parts)
            .map_err(|error| error.to_string())
            .and_then(|mut config| {
                // What remembers nothing is another life.
                config.incarnation.0 += losses << 32;
                begin(config, now, (&mut disk, remains), &self.scenario)
            });
        let replica = match made {
            Ok(replica) => replica,
            Err(why) => return self.fail("recovered", format!("r{place}: {why}")),
        };
        let executed = replica.last_executed();
        self.counts.rare("restarted");
        self.say(place, format_args!("is back, at {executed} of {reached:?}"));
        let member = &mut self.members[place];
        member.machine = Machine::Replica(Box::new(replica));
        member.disk = Some(disk);
        (member.up, member.halted, member.behind) = (true, member.lost, false);
        member.seen = Seqno(0);
        member.deadline = Some(self.now);
        self.replica(place, ReplicaInput::Tick, Origin::default());
    }

    /// What becomes of the service when its replica restarts.
    fn service_restarts(&mut self, place: Place, remains: &Remains) {
        let Some(disks) = &self.scenario.disks else {
            return;
        };
        if !disks.inside {
            let above = remains.snapshot.as_ref().map_or(Seqno(0), |s| s.seqno);
            let open = remains.recovered.calls.iter();
            let mut open =
                open.filter(|((seqno, _), ended)| *seqno > above && **ended == Ended::Open);
            if open.next().is_some() {
                self.members[place].lost = true;
                self.counts.rare("lost_in_execution");
            }
            return;
        }
        let fault = self.scenario.fault_at(place);
        let mut service =
            Service::new(self.scenario.app, self.scenario.service_delay, fault, place);
        let saved = remains.snapshot.as_ref();
        if let Some(parts) = saved.and_then(|saved| saved.application.as_ref()) {
            let (_, restored) = service.restore(parts, &mut self.service_chance);
            if let Err(why) = restored {
                self.fail("recovered", format!("r{place}: {why}"));
            }
        }
        self.members[place].service = Some(service);
        let reached = saved.map_or(Seqno(0), |saved| saved.seqno);
        self.checkers.transferred(place, reached);
    }

    /// A replica hands a record over.
    pub(super) fn append(&mut self, place: Place, position: Position, record: Record) {
        match &mut self.members[place].disk {
            Some(disk) => disk.append(position, record),
            None => self.is_written(place, &record),
        }
    }

    fn is_written(&mut self, place: Place, record: &Record) {
        if self.scenario.honest(place) {
            self.checkers.stands(place, record);
        }
    }

    /// All that one input made is handed over: it is written, unless a write is under way.
    pub(super) fn write(&mut self, place: Place) {
        let (counts, member) = (&mut self.counts, &mut self.members[place]);
        let Some(disk) = member.disk.as_mut().filter(|_| member.up) else {
            return;
        };
        if disk.write(counts) {
            let after = self.sync_time();
            let life = self.members[place].life;
            self.queue
                .put(self.now + after, Happening::Written(place, life));
            self.moment(place, Moment::Writing);
        }
    }

    fn sync_time(&mut self) -> Micros {
        let Some(disks) = &self.scenario.disks else {
            return Micros(1);
        };
        let (sync, slow) = (disks.sync.0, disks.slow);
        let usual = self.power.chance.between(sync / 4, sync).max(1);
        if !self.healed && self.power.chance.permille(slow) {
            self.counts.fault("sync_slow");
            return Micros(usual * 100);
        }
        Micros(usual)
    }

    fn is_full(&self, place: Place) -> bool {
        let disks = self.scenario.disks.as_ref();
        let mut full = disks.into_iter().flat_map(|disks| &disks.full);
        full.any(|full| full.place == place && full.from <= self.now && self.now < full.until)
    }

    /// A write has come to its end.
    pub(super) fn written(&mut self, place: Place, life: u32) {
        if self.members[place].life != life {
            return;
        }
        if self.is_full(place) {
            self.counts.fault("disk_full");
            self.say(place, format_args!("cannot write"));
            let again = Happening::Written(place, life);
            return self.queue.put(self.now + RETRY, again);
        }
        let (counts, member) = (&mut self.counts, &mut self.members[place]);
        let Some((synced, records)) = member.disk.as_mut().and_then(|disk| disk.written(counts))
        else {
            return;
        };
        for record in &records {
            self.is_written(place, record);
        }
        self.say(place, format_args!("has written {}", synced.position().0));
        self.replica(place, ReplicaInput::Synced(synced), Origin::default());
        self.write(place);
    }

    /// A snapshot is to be written.
    pub(super) fn save(&mut self, place: Place, save: Save) {
        let seqno = save.seqno;
        let Some(disk) = &mut self.members[place].disk else {
            return;
        };
        if disk.save(save) {
            self.say(place, format_args!("saves its state at {seqno}"));
            let (after, life) = (self.sync_time(), self.members[place].life);
            self.queue
                .put(self.now + after, Happening::Saved(place, life));
            self.moment(place, Moment::Saving);
        }
    }

    /// A snapshot is written; a full disk takes none, and that one is not tried again.
    pub(super) fn saved(&mut self, place: Place, life: u32) {
        let full = self.is_full(place);
        let member = &mut self.members[place];
        let disk = member.disk.as_mut().filter(|_| member.life == life);
        let Some(disk) = disk else {
            return;
        };
        let seqno = if full { None } else { disk.saved() };
        disk.unsaved();
        if let Some(next) = disk.next_save() {
            self.save(place, next);
        }
        match seqno {
            Some(seqno) => {
                self.counts.rare("snapshot_saved");
                self.replica(place, ReplicaInput::Saved(seqno), Origin::default());
            }
            None => self.counts.fault("snapshot_refused"),
        }
    }

    /// A snapshot of the disk makes older segments needless.
    pub(super) fn truncate(&mut self, place: Place, through: Seqno) {
        if let Some(disk) = &mut self.members[place].disk {
            disk.passed(through);
        }
    }
}
