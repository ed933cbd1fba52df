//! `make demo-apps`: a day in the life of the four example applications, on one cluster, with an account in the evening.
//!
//! All of them are processes of their own, as users run them, and are used through their commands and HTTP. In the morning and in the
//! afternoon each has its turn; at noon all are used at once, and in the midst of that a node is killed, and with it one of the back ends of
//! calc. In the evening everybody is asked what there is: what was promised must be there, once, and all must say the same. The
//! exit status is the verdict.

mod account;
mod activity;
mod calc;
mod school;
mod shift;
mod users;

use std::process::ExitCode;
use std::thread::scope;
use std::time::{Duration, Instant};

use account::Account;
use highwater_tests::{Program, TestCluster, eventually};
use shift::Shift;

type Result<T> = std::result::Result<T, String>;

/// What each application does in a quiet shift.
const ROUNDS: usize = 6;
/// What each does at noon before something is killed, and at least after that.
const ROUNDS_BEFORE: usize = 2;
const ROUNDS_AFTER: usize = 4;
/// How long a shift may take in which things are killed.
const SHIFT_DEADLINE: Duration = Duration::from_secs(180);

/// An application that is used: it has been started, and is told when to do what.
trait Application: Send {
    /// What it is called.
    fn name(&self) -> &'static str;

    /// Is used until the shift is over; what was done, in words.
    ///
    /// # Errors
    /// What was answered that must not be.
    fn work(&mut self, shift: &Shift) -> Result<String>;

    /// Asks everybody who knows of it what there is.
    ///
    /// # Errors
    /// Who did not answer.
    fn account(&mut self, cluster: &TestCluster, account: &mut Account) -> Result<()>;
}

fn main() -> ExitCode {
    let started = Instant::now();
    // Who starts and waits for processes panics when it has waited too long.
    let verdict =
        std::panic::catch_unwind(day).unwrap_or_else(|_| Err("it did not go on; why stands above".to_owned()));
    let seconds = started.elapsed().as_secs_f64();
    match verdict {
        Ok(()) => {
            println!("\nDone in {seconds:.1} s. All say the same: nothing was lost, and nothing happened twice.");
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("\nFAILED after {seconds:.1} s: {why}");
            ExitCode::FAILURE
        }
    }
}

fn day() -> Result<()> {
    println!("Four applications that live on a log, for a day.\n");
    let mut cluster = TestCluster::start(3);
    cluster.wait_acquainted();
    println!("06:00  three nodes");
    let mut programs = Vec::new();
    let (calc, back_end) = calc::start(&cluster, &mut programs);
    let mut applications: Vec<Box<dyn Application>> = vec![
        Box::new(users::start(&cluster, &mut programs)),
        Box::new(activity::start(&cluster, &mut programs)),
        Box::new(school::start(&cluster, &mut programs)?),
        Box::new(calc),
    ];
    println!("08:00  {} services are ready", programs.len());
    quiet("09:00", "morning", &mut applications)?;
    noon(&mut cluster, &mut applications, &mut programs[back_end])?;
    quiet("15:00", "afternoon", &mut applications)?;
    evening(&cluster, &mut applications)?;
    // As at the end of a deployment: each ends by itself when it is asked to. The one that was killed has ended already.
    programs.remove(back_end);
    programs.into_iter().for_each(Program::stop);
    Ok(())
}

/// One application after the other.
fn quiet(time: &str, name: &'static str, applications: &mut [Box<dyn Application>]) -> Result<()> {
    let mut time = time;
    for application in applications {
        let shift = Shift::of_rounds(name, ROUNDS);
        println!("{time:5}  {:9} {}", application.name(), application.work(&shift)?);
        time = "";
    }
    Ok(())
}

/// All at once, and what they stand on is killed meanwhile.
fn noon(cluster: &mut TestCluster, applications: &mut [Box<dyn Application>], back_end: &mut Program) -> Result<()> {
    let shifts: Vec<Shift> = applications.iter().map(|_| Shift::open("noon")).collect();
    let mut killed = None;
    let done: Vec<Result<String>> = scope(|scope| {
        let each = applications.iter_mut().zip(&shifts);
        let working: Vec<_> = each
            .map(|(application, shift)| scope.spawn(move || application.work(shift)))
            .collect();
        killed = Some(kill(cluster, &shifts, back_end));
        working
            .into_iter()
            .map(|working| {
                working
                    .join()
                    .unwrap_or_else(|_| Err("what uses it has panicked".to_owned()))
            })
            .collect()
    });
    for (application, done) in applications.iter().zip(done) {
        println!("       {:9} {}", application.name(), done?);
    }
    if let Some(killed) = killed {
        cluster.node(killed).start();
        cluster.wait_node_ready(killed);
        println!("14:00  {} is back and has caught up", cluster.nodes()[killed].name());
    }
    Ok(())
}

/// Ends shifts when it is dropped, also by a panic: whoever works in them would work for ever.
struct Ending<'a>(&'a [Shift]);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(Shift::end);
    }
}

/// Kills the node that leads a partition of users, and a back end of calc; ends the shifts once all have gone on for a while. Which node.
fn kill(cluster: &mut TestCluster, shifts: &[Shift], back_end: &mut Program) -> usize {
    let _ending = Ending(shifts);
    eventually("all are at work", SHIFT_DEADLINE, || {
        all_have(shifts, ROUNDS_BEFORE).then_some(())
    });
    let leader = cluster.leader("users", 0);
    cluster.node(leader).kill();
    back_end.kill();
    let name = cluster.nodes()[leader].name();
    println!("12:00  in the midst of work, {name} is killed, and with it a back end of calc");
    let before: Vec<usize> = shifts.iter().map(Shift::rounds).collect();
    eventually("all go on without the node", SHIFT_DEADLINE, || {
        let mut each = shifts.iter().zip(&before);
        each.all(|(shift, before)| shift.is_over_for_them() || shift.rounds() >= before + ROUNDS_AFTER)
            .then_some(())
    });
    leader
}

fn all_have(shifts: &[Shift], rounds: usize) -> bool {
    shifts
        .iter()
        .all(|shift| shift.is_over_for_them() || shift.rounds() >= rounds)
}

fn evening(cluster: &TestCluster, applications: &mut [Box<dyn Application>]) -> Result<()> {
    println!("18:00  the account:");
    let mut account = Account::default();
    for application in applications {
        account.begin(application.name());
        application.account(cluster, &mut account)?;
    }
    account.verdict()
}
