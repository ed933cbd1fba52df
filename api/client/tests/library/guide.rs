//! The README shows the program that the tests run.

const README: &str = include_str!("../../README.md");
const EXAMPLE: &str = include_str!("../../examples/five_minutes.rs");

#[test]
fn the_program_in_the_readme_is_the_example() {
    let shown = README
        .split("```rust,no_run\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let (_header, program) = EXAMPLE.split_once("\n\n").unwrap();
    assert_eq!(shown, Some(program));
}
