//! A short run of `make groups`.

use std::process::Command;

use highwater_tests::run;

use crate::PATIENCE;

#[test]
fn a_group_whose_members_and_nodes_are_killed_and_paused_skips_nothing_and_never_goes_back() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_groups"));
    let finished = run(command.args(["--seconds", "15", "--seed", "3"]), PATIENCE * 3);
    let said = finished.stdout();
    println!("{}{said}", finished.stderr);
    assert_eq!(finished.code(), 0);
    assert!(said.contains("groups: Pass"));
}
