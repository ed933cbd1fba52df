//! Topics and placement as a pure state machine.
