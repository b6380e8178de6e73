"""A preset at work: captions of any number of images."""
