"""A small transformer that reads an image row by row, to be named in a study.

module = "configs/models/transformer.py:RowReader"
"""

import torch
from torch import nn

WIDTH, HEADS, LAYERS = 32, 4, 2


class RowReader(nn.Module):
    """Every row of the image is a word; the mean over all words is classified.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of a sample: the problem setting of that name.
    classes : int
        Classes of the data.
    """

    def __init__(self, shape, classes):
        super().__init__()
        rows, columns = shape
        self.embedding = nn.Linear(columns, WIDTH)
        self.position = nn.Parameter(0.02 * torch.randn(rows, WIDTH))
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 2 * WIDTH, dropout=0.1, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.scores = nn.Linear(WIDTH, classes)

    def forward(self, images):
        words = self.embedding(images) + self.position
        return self.scores(self.encoder(words).mean(dim=1))
