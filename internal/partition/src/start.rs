//! Starting a replica: what was committed, what the others remember, and then the core.
//!
//! Until the core runs, peers are answered by `unstarted`.
//!
//! The order matters. The tasks that mend the log come first, because everything behind them may need an entry that is
//! damaged: first of all the core itself, which asks for the last entry of each term. Then the others are asked what they remember of this replica: before that it may not vote, campaign or
//! acknowledge anything, so there is no core yet.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use highwater_log::{EntryId, Grade, GroupId, Log, ReplicaId};
use tokio::sync::{oneshot, watch};

use crate::catch_up::CatchUpPace;
use crate::caught_up::FormerEnd;
use crate::config::Timers;
use crate::contact::Ear;
use crate::error::Error;
use crate::hand_over::HandOver;
use crate::install::Receiver;
use crate::life::Life;
use crate::machine::{GroupMachine, Machine};
use crate::memory::{Memory, all_members, check_promises};
use crate::mending::{Mending, Refiller};
use crate::network::GroupNetwork;
use crate::partition::{Inner, Partition};
use crate::peers::Peers;
use crate::progress::Progress;
use crate::responder::InFlight;
use crate::runtime;
use crate::scrub::{ScrubPace, scrub};
use crate::serve::Server;
use crate::snapshot::Snapshots;
use crate::stages::{ReplicaStages, Stages};
use crate::status::{Observer, Voters};
use crate::storage::{GroupStorage, terms_of};
use crate::trim::Trimmer;
use crate::types::{Member, Raft};

/// How soon to look again for an entry that a start waits for.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// Everything a replica needs.
pub struct GroupOptions {
    /// The group.
    pub group_id: GroupId,
    /// This replica of it.
    pub replica_id: ReplicaId,
    /// Its log, open.
    pub log: Log,
    /// The machine of a control group; None for data.
    pub machine: Option<Arc<dyn Machine>>,
    /// The way to the other replicas.
    pub peers: Arc<dyn Peers>,
    /// The cluster's timers.
    pub timers: Timers,
    /// Members that are known otherwise than from the log, which may have lost them; may be empty. They, too, are asked for
    /// what they remember of this replica, and for entries that it has lost.
    pub members: Vec<Member>,
    /// How fast the log is verified in the background; one for all replicas of a node.
    pub scrub: ScrubPace,
    /// How fast others may catch up with what this replica leads; one for all replicas of a node.
    pub catch_up: CatchUpPace,
    /// Told how long the stages of writes take; one for all replicas of a node.
    pub stages: Stages,
}

impl Partition {
    /// Starts the replica on its log: recovers what was committed, asks the other members whether the log holds all that
    /// this replica has promised, replays the machine and joins the group's life. Takes as long as it takes to get back
    /// damaged entries that are needed for that, and up to a few seconds if members cannot be reached.
    /// `Error::is_dead` tells whether the replica must be replaced instead.
    pub async fn start(options: GroupOptions) -> Result<Partition, Error> {
        let GroupOptions {
            group_id,
            replica_id,
            log,
            machine,
            peers,
            timers,
            members,
            scrub: pace,
            catch_up,
            stages,
        } = options;
        let config = Arc::new(timers.config(group_id.0)?);
        let stages = ReplicaStages::new(stages);
        let has_machine = machine.is_some();
        let (progress, snapshots) = take_up(log.clone())?;
        let mending = Mending::new(log.clone());
        let life = Life::begin();
        let refiller = Refiller {
            group_id,
            own: replica_id.0,
            log: log.clone(),
            peers: peers.clone(),
            known: members.clone(),
            mending: mending.clone(),
            snapshots: snapshots.clone(),
        };
        life.spawn(refiller.run());
        life.spawn(scrub(log.clone(), pace));
        wait_for_terms(&log, &mending, &snapshots).await?;
        let all = all_members(&log, &members).await?;
        check_promises(peers.as_ref(), group_id, replica_id.0, &all, &log).await?;
        let group_machine =
            GroupMachine::recover(log.clone(), machine, progress.clone(), snapshots.clone(), &mending).await?;
        let due = group_machine.due();
        let memory = Arc::new(Memory::default());
        let ear = Arc::new(Ear::new(&timers));
        let voters = Voters::default();
        let network = GroupNetwork {
            group_id,
            peers: peers.clone(),
            snapshots: snapshots.clone(),
            memory: memory.clone(),
            log: log.clone(),
            catch_up,
            voters: voters.clone(),
            stages: stages.clone(),
        };
        let (manifests_kept, damage) = (snapshots.clone(), mending.clone());
        let storage = GroupStorage::new(log.clone(), progress.clone(), manifests_kept, damage, stages.clone());
        let raft = Raft::new(replica_id.0, config, network, storage, group_machine)
            .await
            .map_err(|err| Error::Raft(err.to_string()))?;
        let observer = Observer {
            raft: raft.clone(),
            log: log.clone(),
            progress: progress.clone(),
            mending: mending.clone(),
            voters,
            former_end: Arc::new(FormerEnd::new(&log)),
            leadership: Arc::default(),
        };
        let (changes_sender, changes) = watch::channel(observer.status());
        let (ending_sender, ending) = watch::channel(None);
        runtime::spawn(observer.clone().watch(changes_sender, ending_sender));
        let manifests = Receiver::new(raft.clone(), log.clone(), snapshots.truncations().clone());
        let trimmer = Trimmer {
            raft: raft.clone(),
            log: log.clone(),
            snapshots,
            mending: mending.clone(),
        };
        life.spawn(trimmer.run(due));
        let hand_over = HandOver::new(raft.clone(), timers.election_max_ms);
        life.spawn(hand_over.clone().step_aside(mending.clone(), changes.clone()));
        let inner = Inner {
            group_id,
            server: Server::new(replica_id.0, raft.clone(), log.clone(), manifests, memory, ear.clone()),
            hand_over,
            raft,
            log,
            progress,
            ear,
            in_flight: Arc::new(InFlight::default()),
            peers,
            observer,
            mending,
            has_machine,
            timers,
            stages,
            changes,
            ending,
            shutting_down: AtomicBool::new(false),
            life: Mutex::new(Some(life)),
        };
        Ok(Partition { inner: Arc::new(inner) })
    }
}

/// Waits until the log can tell its terms, which the core must know before anything. If the entry that it takes is damaged here and purged
/// elsewhere, another's manifest stands for it; there is no core yet to be asked before the purge. One that reaches beyond what is
/// committed here could only be installed by a core: the replica is dead.
async fn wait_for_terms(log: &Log, mending: &Mending, snapshots: &Snapshots) -> Result<(), Error> {
    loop {
        let terms = log.clone();
        let known = runtime::blocking(move || terms_of(&terms)).await;
        let error = match known.map_err(|err| Error::Raft(format!("reading the terms: {err}")))? {
            Ok(()) => return Ok(()),
            Err(error) if error.grade() == Grade::Inside => error,
            Err(error) => return Err(error.into()),
        };
        tracing::warn!(%error, "the start waits for a refill");
        let mut changes = mending.changes();
        tokio::select! {
            biased;
            floor = snapshots.pinned_from(0) => purge(log, snapshots, floor).await?,
            why = mending.behind() => return Err(Error::Dead(format!("{error}, and {why}"))),
            _ = changes.changed() => {}
            () = tokio::time::sleep(LOOK_PAUSE) => {}
        }
    }
}

/// Purges up to a manifest that is pinned.
async fn purge(log: &Log, snapshots: &Snapshots, floor: EntryId) -> Result<(), Error> {
    let Some(manifest) = snapshots.pinned_at(floor.index) else {
        return Ok(());
    };
    let (done, purged) = oneshot::channel();
    let log = log.clone();
    let purge = move || {
        let done = Box::new(move |result| drop(done.send(result)));
        log.purge(Arc::unwrap_or_clone(manifest), done)
    };
    let queued = runtime::blocking(purge).await;
    queued.map_err(|err| Error::Raft(format!("purging: {err}")))??;
    snapshots.unpin(floor);
    match purged.await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Error::Raft("the log dropped a purge".to_owned())),
    }
}

/// Takes up what is known to be committed.
fn take_up(log: Log) -> Result<(Arc<Progress>, Arc<Snapshots>), Error> {
    if let Some(noted) = log.noted_commit() {
        log.commit(noted.index)?;
    }
    Ok((Arc::new(Progress::new(log.clone())), Snapshots::new(log)))
}
