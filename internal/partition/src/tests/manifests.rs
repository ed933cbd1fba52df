//! Manifests that are cut, forged, misdirected or of another group. The group must not mind.
