//! Whom a client command talks to: the profile with the cluster's addresses and the client's certificate.

use std::path::PathBuf;

use crate::exit::{Failure, Result};

