import tifffile

from denoiseg_flow.data.metadata import Metadata
from denoiseg_flow.data.planes import *
from denoiseg_flow.data.planes import UNREADABLE, read_pixel_size, read_plane
from denoiseg_flow.errors import InputError


class ImageFile:
    def __init__(self, path, axes=None, indexed=False):
        self.path = path
        if str(path).lower().endswith("png"):
            self.array = read_plane(path, indexed)
            self.metadata = Metadata("YX")
            self.shape = self.array.shape
            self.dtype = self.array.dtype
            return
        try:
            self.tif = tifffile.TiffFile(path)
            s = self.tif.series[0]
            if "S" in s.axes:
                raise InputError(f"{path} is a colour image")
            self.array = s.asarray()
        except UNREADABLE as e:
            if isinstance(e, InputError):
                raise
            raise InputError(
                f"{path} cannot be read, it seems damaged or incomplete ({e}): copy or export it again"
            )
        ax = axes or s.axes
        size = {}
        names = ()
        if self.tif.is_ome:
            px = tifffile.xml2dict(self.tif.ome_metadata)["OME"]["Image"]["Pixels"]
            size = {a: float(px[f"PhysicalSize{a}"]) for a in "ZYX" if f"PhysicalSize{a}" in px}
            ch = px["Channel"]
            ch = ch if isinstance(ch, list) else [ch]
            names = tuple(c.get("Name", "") for c in ch) if "C" in ax else ()
        elif read_pixel_size(path):
            size = dict(zip("YX", read_pixel_size(path)))
        self.metadata = Metadata(ax, size, names)
        self.shape = self.array.shape
        self.dtype = self.array.dtype

    def __enter__(self):
        return self

    def __exit__(self, *a):
        pass

    def read(self, place):
        return self.array[place]


def open_image_file(path, axes=None, indexed=False):
    return ImageFile(path, axes, indexed)


def read_image(path, axes=None, indexed=False):
    with open_image_file(path, axes, indexed) as file:
        return file.read(tuple(slice(0, n) for n in file.shape))
