"""What tests of plates share."""

import zarr
from ome_zarr.format import FormatV04, FormatV05
from ome_zarr.writer import write_image, write_plate_metadata, write_well_metadata

FORMATS = {"0.4": FormatV04(), "0.5": FormatV05()}


def write_plate(path, fields, version="0.4"):
    """Write a plate with the reference implementation, given its fields (y, x) by their paths."""
    form = FORMATS[version]
    wells = {}
    for place in fields:
        well, _, field = place.rpartition("/")
        wells.setdefault(well, []).append(field)
    rows, columns = (sorted({well.split("/")[n] for well in wells}) for n in (0, 1))
    plate = zarr.open_group(str(path), mode="w", zarr_format=form.zarr_format)
    write_plate_metadata(plate, rows, columns, list(wells), fmt=form)
    for well, names in wells.items():
        write_well_metadata(plate.require_group(well), names, fmt=form)
    for place, pixels in fields.items():
        group = plate.require_group(place)
        with zarr.config.set({"array.write_empty_chunks": True}):
            write_image(pixels, group, axes="yx", scale_factors=[], fmt=form)
    return path
