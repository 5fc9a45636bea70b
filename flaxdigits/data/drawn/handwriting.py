"""Turns stroke skeletons into pen paths that vary like handwriting.

Points are complex numbers, x + iy with y downwards: adding shifts them, and multiplying by
exp(size + i turn) scales and turns them. A drawing differs from the skeleton by the
variation between writers and by the variation between a writer's drawings.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.interpolate import CubicSpline

from flaxdigits.data.drawn.skeletons import Skeleton, Stroke
from flaxdigits.progress import NO_PROGRESS, Progress

CHUNK = 50  # drawings worked on at once: few, to stay in the cache; changes nothing else
POINT_SPACING = 1 / 64  # between neighbouring points of a path, in unit boxes
LOOSE_ENDS = 1.7  # a stroke's ends vary by this much more than its other points
WAVES = 3  # plane waves in one smooth distortion
WAVE_CYCLES = 0.5  # standard deviation of a wave's cycles per unit box


@dataclass(frozen=True)
class Deviations:
    """Standard deviations of what varies, in unit boxes, radians or logarithms of a factor."""

    slant: float  # x moved per unit of height
    rise: float  # y moved up per unit of width
    turn: float  # rotation of the whole character
    size: float  # log factor of width and height together
    width: float  # log factor
    height: float  # log factor
    waves: float  # amplitude of a smooth distortion of the plane
    point: float  # each control point separately
    stroke_shift: float  # each stroke as a whole
    stroke_turn: float
    stroke_size: float  # log factor


@dataclass(frozen=True)
class Handwriting:
    """The writer of each drawing, and how much writers and drawings vary.

    Attributes:
        writers: [n] int, the writer of each drawing, from 0.
        writer_count: the number of writers, including those without drawings.
        between: the deviations between writers.
        within: the deviations between drawings of a writer.
    """

    writers: np.ndarray
    writer_count: int
    between: Deviations
    within: Deviations

    def of(self, rows: np.ndarray) -> "Handwriting":
        """Returns the handwriting of some of the drawings."""
        return replace(self, writers=self.writers[rows])

    def normal(self, rng: np.random.Generator, name: str, *shape: int) -> np.ndarray:
        """[n, *shape] float64: the writer's part and the drawing's part of one variation."""
        writers = rng.standard_normal((self.writer_count, *shape))
        drawings = rng.standard_normal((len(self.writers), *shape))
        return getattr(self.between, name) * writers[self.writers] + (
            getattr(self.within, name) * drawings
        )

    def complex_normal(self, rng: np.random.Generator, name: str, *shape: int) -> np.ndarray:
        """[n, *shape] complex128: the same for a shift in the plane."""
        parts = self.normal(rng, name, *shape, 2)
        return parts[..., 0] + 1j * parts[..., 1]


def control_points(stroke: Stroke) -> np.ndarray:
    """[controls] complex128: the stroke's points, each corner once."""
    points = [complex(*point) for point in stroke]
    return np.array([p for i, p in enumerate(points) if i == 0 or p != points[i - 1]])


def curve_weights(stroke: Stroke) -> np.ndarray:
    """[points, controls] float64: a smooth curve as a linear map of the stroke's control points.

    Between corners the curve is a natural cubic spline over the chord length.
    """
    points = [complex(*point) for point in stroke]
    pieces = [[0]]
    control = 0
    for previous, point in itertools.pairwise(points):
        if point == previous:
            pieces.append([control])
        else:
            control += 1
            pieces[-1].append(control)
    controls = control_points(stroke)
    rows = []
    for piece in pieces:
        chords = np.abs(np.diff(controls[piece]))
        knots = np.concatenate([[0.0], np.cumsum(chords)])
        steps = int(np.ceil(knots[-1] / POINT_SPACING))
        spline = CubicSpline(knots, np.eye(control + 1)[piece], bc_type="natural")
        rows.append(spline(np.linspace(0, knots[-1], steps + 1)))
    return np.concatenate(rows)


def write_strokes(
    skeleton: Skeleton, handwriting: Handwriting, rng: np.random.Generator
) -> list[np.ndarray]:
    """Draws one skeleton in the given handwriting.

    Returns:
        One [n, points] complex128 array per stroke, in the unit box.
    """
    paths = []
    for stroke in skeleton.strokes:
        controls = control_points(stroke)
        middle = controls.mean()
        turned = np.exp(
            handwriting.normal(rng, "stroke_size") + 1j * handwriting.normal(rng, "stroke_turn")
        )
        shifted = middle + handwriting.complex_normal(rng, "stroke_shift")
        moved = shifted[:, None] + turned[:, None] * (controls - middle)
        loose = np.ones(len(controls))
        loose[[0, -1]] = LOOSE_ENDS
        moved += loose * handwriting.complex_normal(rng, "point", len(controls))
        paths.append(moved @ curve_weights(stroke).T)
    return paths


@dataclass(frozen=True)
class Distortion:
    """What happens to a whole character, drawing by drawing; every array starts with [n]."""

    slant: np.ndarray
    rise: np.ndarray
    turn: np.ndarray
    width: np.ndarray
    height: np.ndarray
    wave_shifts: np.ndarray  # [n, WAVES] complex
    wave_cycles: np.ndarray  # [n, WAVES] complex: cycles along x and y
    wave_phases: np.ndarray  # [n, WAVES]

    @classmethod
    def draw(cls, handwriting: Handwriting, rng: np.random.Generator) -> "Distortion":
        """Draws the distortion of every drawing; a writer's waves share directions."""
        n = len(handwriting.writers)
        cycles = rng.normal(0, WAVE_CYCLES, (2, n, WAVES))
        size = handwriting.normal(rng, "size")
        return cls(
            slant=handwriting.normal(rng, "slant"),
            rise=handwriting.normal(rng, "rise"),
            turn=handwriting.normal(rng, "turn"),
            width=np.exp(size + handwriting.normal(rng, "width")),
            height=np.exp(size + handwriting.normal(rng, "height")),
            wave_shifts=handwriting.complex_normal(rng, "waves", WAVES),
            wave_cycles=cycles[0] + 1j * cycles[1],
            wave_phases=rng.uniform(0, 2 * np.pi, (n, WAVES)),
        )

    def apply(self, rows: np.ndarray, points: np.ndarray) -> np.ndarray:
        """[len(rows), points] complex128: points of some drawings, distorted about the centre."""
        points = points - (0.5 + 0.5j)
        bent = points.copy()
        for wave in range(WAVES):
            cycles = self.wave_cycles[rows, wave, None]
            angle = 2 * np.pi * (cycles.real * points.real + cycles.imag * points.imag)
            bent += self.wave_shifts[rows, wave, None] * np.sin(
                angle + self.wave_phases[rows, wave, None]
            )
        x = self.width[rows, None] * bent.real - self.slant[rows, None] * bent.imag
        y = self.height[rows, None] * bent.imag - self.rise[rows, None] * bent.real
        return (x + 1j * y) * np.exp(1j * self.turn[rows, None])


def write_characters(
    characters: tuple[tuple[Skeleton, ...], ...],
    labels: np.ndarray,
    forms: np.ndarray,
    handwriting: Handwriting,
    rng: np.random.Generator,
    progress: Progress = NO_PROGRESS,
) -> Iterator[tuple[Skeleton, np.ndarray, list[np.ndarray]]]:
    """Writes one character per label.

    Args:
        characters: the skeletons of each class.
        labels: [n] int, the class of each drawing.
        forms: [n] float64 in [0, 1), which chooses among the class's skeletons by their shares.
        handwriting: the writers of the drawings.
        rng: the source of all randomness.
        progress: is notified of the number of drawings.

    Yields:
        A skeleton, the rows [m] that were written with it, and one [m, points] complex128 array
        per stroke, in unit boxes about the centre of the box. Every row occurs once.
    """
    distortion = Distortion.draw(handwriting, rng)
    with progress.stage("generating synthetic images", len(labels)) as advance:
        done = 0
        for label, skeletons in enumerate(characters):
            ends = np.cumsum([skeleton.share for skeleton in skeletons])
            choice = np.searchsorted(ends, forms * ends[-1], side="right")
            for number, skeleton in enumerate(skeletons):
                rows = np.flatnonzero((labels == label) & (choice == number))
                paths = write_strokes(skeleton, handwriting.of(rows), rng)
                for start in range(0, len(rows), CHUNK):
                    part = slice(start, start + CHUNK)
                    distorted = [distortion.apply(rows[part], path[part]) for path in paths]
                    yield skeleton, rows[part], distorted
                    done += len(rows[part])
                    advance(done)
