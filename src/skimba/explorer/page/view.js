// Which frame of a clip the pictures show; a picture is one frame.

/** What drawing on the picture needs; `answer` is any side's. */
export const viewOf = (state, answer = state.answers.dense) => ({ grid: answer.grid, frames: answer.frames, frame: state.frame });

/** The patch in the middle of the shown frame. */
export function middle({ grid: [all, columns], frames, frame }) {
  const rows = all / frames;
  return (frame * rows + Math.floor(rows / 2)) * columns + Math.floor(columns / 2);
}
