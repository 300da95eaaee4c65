"""How is an image file decoded? By Pillow, or faster by simplejpeg where that is there.

Both give the same pixels: they wrap the same library.

Example:
    >>> image, shape = read_image("cat.jpg")
"""

import io
import math

import numpy as np

try:
    import simplejpeg
except ImportError:
    simplejpeg = None


def read_image(source, least=None, *arguments):
    """Reads an image.

    Args:
        source: A file's path, or a uint8 array.
        least: A function of a height, a width and the `arguments` that tells how small
            a file may be decoded, see `photo.least_to_crop`; None for its own size.
        *arguments: See `least`.

    Returns:
        The image in RGB, a `PIL.Image` or uint8 ``[height, width, 3]``; and the
        (height, width) that it has in the file.
    """
    if isinstance(source, np.ndarray):
        return source, source.shape[:2]
    try:
        with open(source, "rb") as file:
            encoded = file.read()
        # What simplejpeg refuses, Pillow reads, or says what is wrong with it.
        pixels = _whole_jpeg(encoded, least, arguments)
        if pixels is not None:
            return pixels, pixels.shape[:2]
        return _with_pillow(encoded, least, arguments)
    except FileNotFoundError:
        raise
    # Pillow raises nearly anything, and most of it does not name the file.
    except Exception as error:
        # What it cannot identify, it calls by its place in memory.
        reason, _, _ = str(error).partition(" <_io")
        raise OSError(f"Cannot read the image {source}: {reason}") from error


def _whole_jpeg(encoded, least, arguments):
    """Decodes a JPEG file that need not be decoded smaller, or returns None."""
    if simplejpeg is None or not encoded.startswith(b"\xff\xd8"):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(encoded)
        if colours not in ("YCbCr", "Gray", "RGB"):  # Rounded otherwise.
            return None
        if least is not None:
            least_height, least_width = least(height, width, *arguments)
            if height >= 2 * least_height and width >= 2 * least_width:
                return None
        return simplejpeg.decode_jpeg(encoded)
    # It refuses what libjpeg warns of, and knows no name for subsampling 4:4:1.
    except (ValueError, KeyError):
        return None


def _with_pillow(encoded, least, arguments):
    from PIL import Image

    with Image.open(io.BytesIO(encoded)) as image:
        shape = (image.height, image.width)
        if least is not None:
            height, width = least(*shape, *arguments)
            image.draft(None, (math.ceil(width), math.ceil(height)))
        image.load()
        if image.mode.startswith("I"):  # 16 bits, which `convert` clips at 255.
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return (image if image.mode == "RGB" else image.convert("RGB")), shape
