//! How batches are compressed, as flags say it.

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Compression {
    #[default]
    None,
    Lz4,
    Zstd,
}

impl From<Compression> for highwater::Compression {
    fn from(chosen: Compression) -> Self {
        match chosen {
            Compression::None => Self::None,
            Compression::Lz4 => Self::Lz4,
            Compression::Zstd => Self::Zstd,
        }
    }
}
