//! Reading one segment file frame by frame: whole frames with their checksum, or only their heads.

use super::disk::{damaged, failed};
use super::format::{
    BODY_BYTES_MAX, BODY_HEAD_BYTES, BodyLayout, FRAME_HEAD_BYTES, FRAME_MAGIC,
    SEGMENT_HEADER_BYTES, SegmentHeader, frame_checksum, u32_at,
};
use super::frame_decode::{
    ConfirmedEnd, Dictionary, Frame, FramePlace, PartitionEntry, end_entries, partition_entries,
};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use wellspring_domain::ports::StoreError;

/// Bytes read at once when only heads are wanted.
const HEAD_WINDOW_BYTES: usize = 8 * 1024;
/// Bytes read at once when looking for a frame behind a bad one.
const SEARCH_WINDOW_BYTES: usize = 1 << 20;

/// A segment file opened for reading, its header checked.
#[derive(Debug)]
pub struct SegmentFile {
    file: File,
    path: Arc<Path>,
    header: SegmentHeader,
}

impl SegmentFile {
    /// Opens and checks the header.
    pub fn open(path: &Path) -> Result<SegmentFile, StoreError> {
        let file = File::open(path).map_err(failed("open", path))?;
        let mut header = [0u8; SEGMENT_HEADER_BYTES];
        file.read_exact_at(&mut header, 0)
            .map_err(|cause| match cause.kind() {
                io::ErrorKind::UnexpectedEof => damaged(path, 0, "segment header is cut off"),
                _ => failed("read", path)(cause),
            })?;
        Ok(SegmentFile {
            header: SegmentHeader::decode(path, &header)?,
            file,
            path: path.into(),
        })
    }

    /// What the segment says about itself.
    pub fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in the file now.
    pub fn length(&self) -> Result<u64, StoreError> {
        let meta = self.file.metadata().map_err(failed("stat", &self.path))?;
        Ok(meta.len())
    }

    /// Reads and checks the frame at `offset`; `dictionary` must hold its entries.
    pub fn frame_at(&self, offset: u64, dictionary: &Arc<Dictionary>) -> Result<Frame, StoreError> {
        let checked = self.body_at(offset, self.length()?)?;
        let (layout, body) = checked.map_err(|cause| damaged(&self.path, offset, cause))?;
        self.decode(offset, layout, body, dictionary.clone())
    }

    fn decode(
        &self,
        offset: u64,
        layout: BodyLayout,
        body: Vec<u8>,
        dictionary: Arc<Dictionary>,
    ) -> Result<Frame, StoreError> {
        let place = FramePlace {
            path: self.path.clone(),
            shard: self.header.shard,
            segment: self.header.segment,
            offset,
        };
        Frame::decode(place, layout, body, dictionary)
    }

    /// The body of the frame at `offset`, or why there is no good frame.
    fn body_at(
        &self,
        offset: u64,
        length: u64,
    ) -> Result<Result<(BodyLayout, Vec<u8>), String>, StoreError> {
        let head = match self.read_frame_head(offset, length)? {
            Ok(head) => head,
            Err(cause) => return Ok(Err(cause)),
        };
        let mut body = vec![0u8; head.body_bytes];
        self.read_at(&mut body, offset + FRAME_HEAD_BYTES as u64)?;
        if frame_checksum(&body) != head.checksum {
            return Ok(Err("frame checksum does not match".to_owned()));
        }
        Ok(BodyLayout::parse(&body[..BODY_HEAD_BYTES], body.len())
            .map(|layout| (layout, body))
            .map_err(str::to_owned))
    }

    fn read_frame_head(
        &self,
        offset: u64,
        length: u64,
    ) -> Result<Result<FrameHeadFields, String>, StoreError> {
        let mut head = [0u8; FRAME_HEAD_BYTES];
        if length.saturating_sub(offset) < FRAME_HEAD_BYTES as u64 {
            return Ok(Err("frame head is cut off".to_owned()));
        }
        self.read_at(&mut head, offset)?;
        Ok(FrameHeadFields::parse(&head, length - offset))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), StoreError> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(failed("read", &self.path))
    }

    /// What a frame that could not be read is. A bad frame with anything behind it is damage: a frame is
    /// only written when the one before it is on the disk.
    pub fn judge(&self, offset: u64) -> Result<Verdict, StoreError> {
        // Measured first: a live writer may have finished this frame and begun another since.
        let length = self.length()?;
        if self.body_at(offset, length)?.is_ok() {
            return Ok(Verdict::Whole);
        }
        if let Ok(head) = self.read_frame_head(offset, length)? {
            let end = offset + (FRAME_HEAD_BYTES + head.body_bytes) as u64;
            if end < length && !self.is_zero(end, length)? {
                return Ok(Verdict::Damaged);
            }
        }
        if self.has_frame_after(offset + 1, length)? {
            return Ok(Verdict::Damaged);
        }
        Ok(Verdict::Torn)
    }

    fn is_zero(&self, start: u64, end: u64) -> Result<bool, StoreError> {
        let mut window = vec![0u8; SEARCH_WINDOW_BYTES];
        let mut at = start;
        while at < end {
            let count = (end - at).min(window.len() as u64) as usize;
            self.read_at(&mut window[..count], at)?;
            if window[..count].iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at += count as u64;
        }
        Ok(true)
    }

    fn has_frame_after(&self, start: u64, length: u64) -> Result<bool, StoreError> {
        let mut window = vec![0u8; SEARCH_WINDOW_BYTES];
        let mut at = start;
        while at + (FRAME_HEAD_BYTES + BODY_HEAD_BYTES) as u64 <= length {
            let count = (length - at).min(window.len() as u64) as usize;
            self.read_at(&mut window[..count], at)?;
            let places = window[..count].windows(FRAME_MAGIC.len()).enumerate();
            for (place, _) in places.filter(|(_, bytes)| *bytes == FRAME_MAGIC) {
                if self.body_at(at + place as u64, length)?.is_ok() {
                    return Ok(true);
                }
            }
            // Windows overlap so that a magic on their border is seen.
            at += (count - (FRAME_MAGIC.len() - 1)) as u64;
        }
        Ok(false)
    }
}

/// True for a segment whose creation was interrupted: its header never reached the disk.
pub fn header_is_unwritten(path: &Path) -> Result<bool, StoreError> {
    let meta = std::fs::metadata(path).map_err(failed("stat", path))?;
    if meta.len() > SEGMENT_HEADER_BYTES as u64 {
        return Ok(false);
    }
    let bytes = std::fs::read(path).map_err(failed("read", path))?;
    Ok(bytes.len() < SEGMENT_HEADER_BYTES || bytes.iter().all(|byte| *byte == 0))
}

/// What a frame that could not be read turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A write the program did not finish, or is in the middle of.
    Torn,
    /// Something that was written is wrong.
    Damaged,
    /// It is good now: a live writer has finished it.
    Whole,
}

struct FrameHeadFields {
    body_bytes: usize,
    checksum: u32,
}

impl FrameHeadFields {
    fn parse(head: &[u8], available: u64) -> Result<FrameHeadFields, String> {
        if head[..4] != FRAME_MAGIC {
            return Err("no frame starts here".to_owned());
        }
        let body_bytes = u64::from(u32_at(head, 4));
        if body_bytes < BODY_HEAD_BYTES as u64 || body_bytes > BODY_BYTES_MAX {
            return Err(format!("frame length {body_bytes} cannot be"));
        }
        if body_bytes + FRAME_HEAD_BYTES as u64 > available {
            return Err("frame is cut off".to_owned());
        }
        Ok(FrameHeadFields {
            body_bytes: body_bytes as usize,
            checksum: u32_at(head, 8),
        })
    }
}

/// What is known of a frame without reading its rows. Its checksum has not been checked.
#[derive(Clone, Debug)]
pub struct FrameHead {
    /// First byte of the frame.
    pub offset: u64,
    /// Row number of the first row.
    pub first_row: u32,
    /// Number of rows.
    pub rows: u32,
    /// Bus lines the frame confirms.
    pub partitions: Vec<PartitionEntry>,
    /// All known partition ends before this frame; only in the first frame of a segment.
    pub ends: Vec<ConfirmedEnd>,
}

/// One step through a segment.
#[derive(Debug)]
pub enum Step<T> {
    /// A frame.
    Frame(T),
    /// The file ends here.
    End,
    /// What lies here is no good frame.
    Bad {
        /// First byte of it.
        offset: u64,
        /// Why.
        cause: String,
    },
}

/// Walks through a segment from its first frame, collecting the dictionary.
#[derive(Debug)]
pub struct FrameCursor {
    segment: Arc<SegmentFile>,
    position: u64,
    next_row: u32,
    dictionary: Arc<Dictionary>,
    learned_to: u64,
    window: Vec<u8>,
    window_start: u64,
}

impl FrameCursor {
    /// Starts at the first frame.
    pub fn new(segment: Arc<SegmentFile>) -> FrameCursor {
        FrameCursor {
            segment,
            position: SEGMENT_HEADER_BYTES as u64,
            next_row: 0,
            dictionary: Arc::default(),
            learned_to: 0,
            window: Vec::new(),
            window_start: 0,
        }
    }

    /// The file.
    pub fn segment(&self) -> &Arc<SegmentFile> {
        &self.segment
    }

    /// First byte of the next frame.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Number the next frame's first row must have.
    pub fn next_row(&self) -> u32 {
        self.next_row
    }

    /// The dictionary as far as it has been read.
    pub fn dictionary(&self) -> &Arc<Dictionary> {
        &self.dictionary
    }

    /// The next frame with its rows, its checksum checked.
    pub fn next_frame(&mut self) -> Result<Step<Frame>, StoreError> {
        let length = self.segment.length()?;
        if self.position >= length {
            return Ok(Step::End);
        }
        let (layout, body) = match self.segment.body_at(self.position, length)? {
            Ok(checked) => checked,
            Err(cause) => return Ok(self.bad(cause)),
        };
        if layout.first_row != self.next_row {
            return Ok(self.bad("rows are not consecutive".to_owned()));
        }
        self.learn(&layout, &body[layout.dictionary.clone()])?;
        let offset = self.position;
        self.position += (FRAME_HEAD_BYTES + body.len()) as u64;
        self.next_row = layout.first_row + layout.rows;
        let dictionary = self.dictionary.clone();
        let frame = self.segment.decode(offset, layout, body, dictionary)?;
        Ok(Step::Frame(frame))
    }

    /// The next frame's head; rows are skipped, so a checksum cannot be checked.
    pub fn next_head(&mut self) -> Result<Step<FrameHead>, StoreError> {
        let length = self.segment.length()?;
        if self.position >= length {
            return Ok(Step::End);
        }
        let least = FRAME_HEAD_BYTES + BODY_HEAD_BYTES;
        if length - self.position < least as u64 {
            return Ok(self.bad("frame head is cut off".to_owned()));
        }
        let available = length - self.position;
        let fixed = self.view(least, length)?;
        let layout =
            FrameHeadFields::parse(&fixed[..FRAME_HEAD_BYTES], available).and_then(|head| {
                BodyLayout::parse(&fixed[FRAME_HEAD_BYTES..], head.body_bytes)
                    .map_err(str::to_owned)
            });
        let layout = match layout {
            Ok(layout) if layout.first_row == self.next_row => layout,
            Ok(_) => return Ok(self.bad("rows are not consecutive".to_owned())),
            Err(cause) => return Ok(self.bad(cause)),
        };
        self.head_of(layout, length).map(Step::Frame)
    }

    /// Reads heads until `offset`, the start of a frame, has been reached.
    pub fn skip_to(&mut self, offset: u64) -> Result<(), StoreError> {
        while self.position < offset {
            match self.next_head()? {
                Step::Frame(_) => {}
                Step::End => break,
                Step::Bad { offset, cause } => {
                    return Err(damaged(self.segment.path(), offset, cause));
                }
            }
        }
        if self.position != offset {
            let cause = format!("no frame starts at {offset}");
            return Err(damaged(self.segment.path(), self.position, cause));
        }
        Ok(())
    }

    /// Reads heads up to the frame that holds `row`, or as far as there are good ones.
    pub fn skip_to_row(&mut self, row: u32) -> Result<(), StoreError> {
        loop {
            let (position, first_row) = (self.position, self.next_row);
            let reached = matches!(self.next_head()?, Step::Frame(_)) && self.next_row <= row;
            if !reached {
                self.position = position;
                self.next_row = first_row;
                return Ok(());
            }
        }
    }

    fn head_of(&mut self, layout: BodyLayout, length: u64) -> Result<FrameHead, StoreError> {
        let tables = self.view(FRAME_HEAD_BYTES + layout.dictionary.end, length)?;
        let tables = tables[FRAME_HEAD_BYTES..].to_vec();
        self.learn(&layout, &tables[layout.dictionary.clone()])?;
        let offset = self.position;
        let refuse = |cause| damaged(self.segment.path(), offset, cause);
        let dictionary = &self.dictionary;
        let head = FrameHead {
            offset,
            first_row: layout.first_row,
            rows: layout.rows,
            partitions: partition_entries(&tables[layout.partition_table.clone()], dictionary)
                .map_err(refuse)?,
            ends: end_entries(&tables[layout.end_table.clone()], dictionary).map_err(refuse)?,
        };
        self.position += (FRAME_HEAD_BYTES + layout.heap.end) as u64;
        self.next_row = layout.first_row + layout.rows;
        Ok(head)
    }

    fn learn(&mut self, layout: &BodyLayout, entries: &[u8]) -> Result<(), StoreError> {
        // A frame may be read twice: first its head, then its rows.
        if layout.dictionary_entries == 0 || self.position < self.learned_to {
            return Ok(());
        }
        self.learned_to = self.position + 1;
        Arc::make_mut(&mut self.dictionary)
            .extend(entries, layout.dictionary_entries)
            .map_err(|cause| damaged(self.segment.path(), self.position, cause))
    }

    /// `count` bytes from the position; the file must have them. Heads of small frames share a read.
    fn view(&mut self, count: usize, length: u64) -> Result<&[u8], StoreError> {
        let have = self.window_start..self.window_start + self.window.len() as u64;
        let want_end = self.position + count as u64;
        if !(have.contains(&self.position) && want_end <= have.end) {
            let available = (length - self.position).min(usize::MAX as u64) as usize;
            self.window
                .resize(count.max(HEAD_WINDOW_BYTES).min(available), 0);
            self.window_start = self.position;
            let read = self.segment.read_at(&mut self.window, self.position);
            if read.is_err() {
                self.window.clear();
            }
            read?;
        }
        let start = (self.position - self.window_start) as usize;
        Ok(&self.window[start..start + count])
    }

    fn bad<T>(&mut self, cause: String) -> Step<T> {
        // A live writer may be in the middle of this frame: read it anew next time.
        self.window.clear();
        Step::Bad {
            offset: self.position,
            cause,
        }
    }
}
